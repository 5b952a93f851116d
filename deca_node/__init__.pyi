from deca_node.api.loading import Tuned as Tuned
from deca_node.api.loading import load as load
from deca_node.api.local import local_peers as local_peers
from deca_node.api.node import Event as Event
from deca_node.api.node import Node as Node
from deca_node.api.node import NodeError as NodeError
from deca_node.api.node import Result as Result
from deca_node.api.progress import Lines as Lines
from deca_node.api.progress import LiveTable as LiveTable
from deca_node.api.progress import Progress as Progress
from deca_node.api.records import Evaluation as Evaluation
from deca_node.api.records import Step as Step
from deca_node.api.records import Visit as Visit
from deca_node.api.typed import Settings as Settings
from deca_node.api.waiting import tune as tune
from deca_node.api.waiting import wait as wait

__version__: str
