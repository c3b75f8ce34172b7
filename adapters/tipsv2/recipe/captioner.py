"""Any image-text-to-text model of transformers as a writer of captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmark.errors import UsageError, WeightsError, first_line


class Captioner:
    """Writes greedily, so that the same pictures get the same captions."""

    def __init__(self, name: str, tokens: int, device: str, dtype: str, offline: bool, trust: bool) -> None:
        """`name`: a folder or a hub id. Raises WeightsError where it is no such model or cannot be read."""
        options: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": trust}
        try:
            self.processor: Any = AutoProcessor.from_pretrained(name, **options)  # type: ignore[no-untyped-call]
            model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **options)
        except Exception as error:  # the library raises its own, the hub's and OS errors alike
            raise WeightsError(
                f"{name}: cannot be read as an image-text-to-text model of transformers ({first_line(error)}). Name the"
                " folder or the hub id of one"
            ) from None
        self.device, self.tokens = torch.device(device), tokens
        self.model: Any = model.to(self.device).eval()
        if (tokenizer := getattr(self.processor, "tokenizer", None)) is not None:
            tokenizer.padding_side = "left"  # what is written goes on where the prompt ends

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """A caption for each RGB picture, asked for by its prompt."""
        texts = [self._asked(prompt) for prompt in prompts]
        given = self.processor(images=list(pictures), text=texts, return_tensors="pt", padding=True).to(self.device)
        for name, value in given.items():
            if torch.is_tensor(value) and value.is_floating_point():
                given[name] = value.to(self.model.dtype)
        written = self.model.generate(**given, max_new_tokens=self.tokens, do_sample=False)
        ids = given["input_ids"]
        if written.shape[1] >= ids.shape[1] and torch.equal(written[:, : ids.shape[1]], ids):
            written = written[:, ids.shape[1] :]  # a decoder repeats what it was asked
        said = self.processor.batch_decode(written, skip_special_tokens=True)
        return [_tidy(text, prompt) for text, prompt in zip(said, prompts, strict=True)]

    def _asked(self, prompt: str) -> str:
        if getattr(self.processor, "chat_template", None):
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
            return str(self.processor.apply_chat_template([turn], add_generation_prompt=True))
        image = getattr(self.processor, "image_token", None)
        return f"{image}{prompt}" if image else prompt


def _tidy(text: str, prompt: str) -> str:
    """One line, without the prompt where the model says it again in words."""
    line = " ".join(text.split())
    return line[len(prompt) :].strip() if line.lower().startswith(prompt.lower()) else line


def filled(prompt: str, row: Mapping[str, Any]) -> str:
    """`prompt` with what `row` has in the place of {names}; a list gives its first, what is missing nothing.

    Raises UsageError for braces that are no names.
    """
    known: defaultdict[str, str] = defaultdict(str)
    for name, value in row.items():
        first = value[0] if isinstance(value, list) and value else value
        known[name] = first if isinstance(first, str) else ""
    try:
        return prompt.format_map(known)
    except (ValueError, IndexError, KeyError, AttributeError) as error:
        raise UsageError(f"--prompt: {first_line(error)}. Write {{alt}} for a column, {{{{ for a brace") from None
