"""Class embeddings from prompt templates: each text normalised, averaged over templates, normalised again."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.contracts import EncoderExtras, LabelData, SegmentationData, TaskContext
from benchmark.contracts.prompts import as_prompts
from benchmark.system.late import F, torch
from tasks.datasets.prompts import prompt_list


def templates_for(choice: str, data: SegmentationData | LabelData) -> Sequence[str]:
    """The templates named by a protocol: a list of `tasks/prompts`, or `dataset` for the dataset's own.

    A dataset without its own gets the 80 of OpenAI's ImageNet prompts.
    """
    if choice == "dataset":
        return data.templates or prompt_list("openai_imagenet_80")
    return prompt_list(choice)


def class_embeddings(
    context: TaskContext, names: Sequence[str], templates: Sequence[str], for_patches: bool = False
) -> torch.Tensor:
    """[C, E] unit vectors, as whole pictures or as patches are compared with them.

    A class name may list synonyms separated by `; `: each counts as one more template.

    An underscore of a name (`hot_dog`, as folders and tables are called) is a space in the prompt, as in big_vision's
    and open_clip's canonical text: what each tokenizer made of it would be another text for every family. The rest of
    that canonical text is for the encoders whose card asks for it.
    """
    texts, owner = [], []
    for index, name in enumerate(names):
        for synonym in name.split("; "):
            words = " ".join(synonym.replace("_", " ").split())
            texts += [template.replace("{}", words) for template in templates]
            owner += [index] * len(templates)
    rows = context.text(as_prompts(context.card, texts))
    if for_patches and (made := EncoderExtras.of(context.encoder()).text_for_patches):
        rows = made(rows)
    total = torch.zeros(len(names), rows.shape[1]).index_add_(0, torch.tensor(owner), rows)
    return F.normalize(total, dim=-1)
