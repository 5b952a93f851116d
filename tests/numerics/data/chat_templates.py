"""Chat templates with the features that those of model families have, each written for the tests.

``THINKING`` drops the thinking of turns before the last question, and opens the last turn with an empty one (Qwen 3).
``ENDED`` puts an end of text behind the whole, unless it asks for an answer (Phi 3). ``RETURNED`` ends the last turn
otherwise than those before, and shows thinking there only (gpt-oss). ``ASKED`` closes a thinking in the header, which
stands once for several turns, and takes arguments of calls as text (DeepSeek V3.1). ``OPENED`` opens a thinking where
it asks, and shows none (DeepSeek R1). ``INSTRUCTED`` puts the system's message and the tools into the last question
(Mistral). ``DATED`` tells today's date and trims contents (Llama 3). ``STRICT`` knows no system (Gemma). ``SILENT``
never asks for an answer, and has no tools. ``CHATML`` has a system of its own where the chat has none (SmolLM).
``TAGGED`` says itself what is generated; so do the twins of the families, which :func:`with_tags` makes.
"""

THINKING = """
{%- if tools %}<|im_start|>system
Tools:{% for t in tools %} {{ t.function.name }}{% endfor %}<|im_end|>
{% endif -%}
{%- set ns = namespace(question=-1) -%}
{%- for m in messages if m.role == 'user' %}{% set ns.question = messages.index(m) %}{% endfor -%}
{%- for m in messages -%}
{%- if m.role == 'tool' %}<|im_start|>user
<result>{{ m.content }}</result><|im_end|>
{% elif m.role != 'assistant' %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% else -%}
{%- set answer = m.content.split('</think>')[-1].lstrip('\\n') -%}
{%- set thought = m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content else '' -%}
{%- set thought = thought.strip('\\n') -%}
<|im_start|>assistant
{% if loop.index0 > ns.question and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ answer }}
{%- for c in m.tool_calls or [] -%}
<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""

ENDED = """
{%- for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif -%}
"""

RETURNED = """
{%- for m in messages -%}
{%- if m.role == 'assistant' and m.tool_calls -%}
{%- set call = m.tool_calls[0].function -%}
<|start|>assistant to={{ call.name }}<|message|>{{ call.arguments | tojson }}<|call|>
{%- elif m.role == 'assistant' and loop.last and not add_generation_prompt -%}
{%- if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>
{%- elif m.role == 'assistant' -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>
{%- else -%}
<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}
"""

ASKED = """
{%- set ns = namespace(asked=false) -%}
{{ bos_token }}
{%- for m in messages -%}
{%- if m.role == 'user' %}<|User|>{{ m.content }}{% set ns.asked = true %}
{%- elif m.role == 'tool' %}<|output|>{{ m.content }}
{%- elif m.role == 'assistant' -%}
{%- if ns.asked %}<|Assistant|></think>{% endif %}{% set ns.asked = false -%}
{{ m.content.split('</think>')[-1] }}
{%- for c in m.tool_calls or [] %}<|call|>{{ c.function.name + ' ' + c.function.arguments }}{% endfor -%}
{{ eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and ns.asked %}<|Assistant|>{{ '<think>' if thinking else '</think>' }}{% endif -%}
"""

OPENED = """
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}
{%- else %}<|User|>{{ m.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|Assistant|><think>
{% endif -%}
"""

INSTRUCTED = """
{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set talk = messages[1:] if system else messages -%}
{{ bos_token }}
{%- for m in talk -%}
{%- if m.role == 'user' -%}
{%- set last = (talk | selectattr('role', 'equalto', 'user') | list)[-1] -%}
{%- if tools and m == last %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif -%}
[INST] {{ system + '\\n' if system and loop.last else '' }}{{ m.content }} [/INST]
{%- elif m.role == 'assistant' and m.tool_calls %}[CALLS]{{ m.tool_calls | tojson }}{{ eos_token }}
{%- elif m.role == 'tool' %}[RESULT]{{ m.content }}[/RESULT]
{%- else %} {{ m.content }}{{ eos_token }}
{%- endif -%}
{%- endfor -%}
"""

DATED = """
{{- bos_token -}}
{%- if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif -%}
<|start_header_id|>system<|end_header_id|>

Today: {{ today }}<|eot_id|>
{%- for m in messages -%}
<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif -%}
"""

STRICT = """
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{{ bos_token }}
{%- for m in messages -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif -%}
"""

SILENT = """
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
"""

TAGGED = """
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>
{% endgeneration %}{% else %}{{ m.content }}<|im_end|>
{% endif %}{% endfor -%}
"""

CHATML = """
{%- if messages[0].role != 'system' %}<|im_start|>system
Be kind.<|im_end|>
{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""

GENERATED = {
    "CHATML": ("{{ m.content }}<|im_end|>\n",),
    "DATED": ("{{ m.content | trim }}<|eot_id|>",),
    "STRICT": ("{{ m.content | trim }}<end_of_turn>\n",),
    "INSTRUCTED": (" {{ m.content }}{{ eos_token }}",),
    "ENDED": ("{{ m.content }}<|end|>\n{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% endif %}",),
    "THINKING": (
        """{% if loop.index0 > ns.question and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ answer }}
{%- for c in m.tool_calls or [] -%}
<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>
{%- endfor %}<|im_end|>
""",
    ),
    "RETURNED": (
        "<|channel|>final<|message|>{{ m.content }}<|return|>",
        # No model generates the end of an earlier turn.
        "<|channel|>final<|message|>{{ m.content }}<|end|>",
    ),
}
"""What the assistant generates in a turn, as it stands in the templates of the families."""
OF_ALL_ROLES = ("CHATML", "DATED", "STRICT", "ENDED")
"""Families in whose templates that is what stands in any turn."""


def with_tags(name: str) -> str:
    """The template, with tags around what the assistant generates."""
    template: str = globals()[name]
    if name == "ENDED":
        # There the last end stands behind all turns; here it belongs to the last one.
        (ended,) = GENERATED[name]
        template = template.replace("{% else %}{{ eos_token }}{% endif -%}", "{% endif -%}")
        template = template.replace(ended.partition("{% if")[0], ended)
    for inner in GENERATED[name]:
        assert template.count(inner) == 1, f"the assistant's turn of {name} is not found"
        kept = "<|end|>" if name == "RETURNED" and inner.endswith("<|end|>") else ""
        tagged = f"{{% generation %}}{inner.removesuffix(kept)}{{% endgeneration %}}{kept}"
        if name in OF_ALL_ROLES:
            tagged = f"{{% if m.role == 'assistant' %}}{tagged}{{% else %}}{inner}{{% endif %}}"
        template = template.replace(inner, tagged)
    return template
