"""One SigLIP checkpoint has one text vector, whichever way it comes in: siglip(2)-*, hf: and open_clip:."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from family_models import save_siglip
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from adapters import hub, open_clip_models, siglip
from benchmark.contracts import ModelSpec
from benchmark.contracts.prompts import as_prompts

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "image_size": 32, "patch_size": 16}
TEXTS = ["A photo of two red Cars, a dog & a tree.", "it's  raining", "Hot_Dog!", "", "x " * 90]
PLACES = {
    "embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final", "head": "text_projection",
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj", "encoder.layers": "transformer.resblocks",
}  # fmt: skip


def as_open_clip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The text tower of transformers' SigLIP under open_clip's names."""
    found = {"positional_embedding": tensors.pop("embeddings.position_embedding.weight")}
    for name in list(tensors):
        if ".q_proj." in name:
            parts = [tensors.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            tensors[name.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
    for name, value in tensors.items():
        for old, new in PLACES.items():
            name = name.replace(old, new)
        found[name] = value
    return found


def fast_tokenizer(folder: Path) -> None:
    """spiece.model as tokenizer.json, as timm's repositories of SigLIP have it."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.mark.parametrize("gemma", [False, True], ids=["SigLIP", "SigLIP2"])
def test_one_checkpoint_has_one_text_vector(tmp_path, gemma):
    try:
        open_clip = pytest.importorskip("open_clip")
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"open_clip does not import: {error}")
    folder, arch = tmp_path / "hub", f"Tiny-16-SigLIP{'2' if gemma else ''}"
    text = save_siglip(folder, gemma=gemma, **TINY).text_model
    if not gemma:
        fast_tokenizer(folder)
    config = {
        "embed_dim": 64, "custom_text": True, "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 16},
        "text_cfg": {
            "context_length": 64, "vocab_size": 300, "width": 64, "heads": 4, "layers": 2, "mlp_ratio": 2.0,
            "hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True,
            "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
            **({"act_kwargs": {"approximate": "tanh"}} if gemma else {}),
        },
    }  # fmt: skip
    (tmp_path / f"{arch}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    other = open_clip.create_model(arch)
    other.text.load_state_dict(as_open_clip(dict(text.state_dict())))
    save_file({k: v.contiguous().clone() for k, v in other.state_dict().items()}, tmp_path / "model.safetensors")

    def spec(name, target="", weights=None):
        return ModelSpec(name, target=target, weights=weights and str(weights), device="cpu", dtype="float32")

    encoders = [
        siglip.build(spec("siglip2-tiny", weights=folder)),
        hub.build(spec(f"hf:{folder}", str(folder))),
        open_clip_models.build(spec(f"open_clip:{arch}", arch, tmp_path / "model.safetensors")),
    ]
    captions, *others = (encoder.encode_text(TEXTS) for encoder in encoders)
    prompts, *more = (encoder.encode_text(as_prompts(encoder.card, TEXTS)) for encoder in encoders)
    for found, wanted in [(found, captions) for found in others] + [(found, prompts) for found in more]:
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert not torch.equal(captions[0], prompts[0]), "captions keep their punctuation"
    plain = encoders[0].encode_text(["a photo of two red cars a dog a tree", "its raining", "hot dog"])
    torch.testing.assert_close(prompts[:3], plain)
