"""``python -m bench.packing.convert FILE.gguf FOLDER``: a GGUF file as an ordinary checkpoint in float32."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Write the model, its tokenizer and its chat template."""
    file, folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    facts = found.config.to_dict()
    # The new model is not quantized, and must not say so.
    facts.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**facts)).to(torch.float32)
    model.load_state_dict(found.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert tokenizer.chat_template, "the file has a chat template"
    aside = folder.with_name(f".{folder.name}.new")
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    aside.rename(folder)


if __name__ == "__main__":
    main()
