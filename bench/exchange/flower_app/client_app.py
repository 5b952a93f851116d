"""The client of the Flower app: unpack the parameters, and send them back as its own."""

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """The work of a client in a round, without the training."""
    parameters = message.content["parameters"].to_numpy_ndarrays()
    return Message(RecordDict({"parameters": ArrayRecord(parameters)}), reply_to=message)
