"""Embedding recipes, with sentence-transformers as the oracle."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from lorat import MultiLoRAT
from lorat.errors import AdapterFileError, InputError, UnsupportedAdapterError
from lorat.files.recipe_file import read_recipe
from lorat.recipe import POOLING_MODES, Recipe
from tests.oracle import make_peft

TEXTS = ["a", "", "What is LoRA?", "one base " * 30, "Some UPPER case", "long " * 700]


def saved(tiny_path, directory, *modules, **options):
    """A sentence-transformers model on the tiny base, saved to a directory."""
    transformer = Transformer(str(tiny_path), **options.pop("transformer", {}))
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu", **options)
    model.save(str(directory))
    return model


@pytest.mark.parametrize("mode", [*POOLING_MODES, ("mean", "cls"), ("max", "weightedmean")])
def test_each_pooling_equals_sentence_transformers(mode, tiny_path, tmp_path):
    expected = saved(tiny_path, tmp_path, Pooling(32, pooling_mode=mode)).encode(TEXTS)
    got = MultiLoRAT.from_pretrained(tmp_path, device="cpu").embed(TEXTS)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 2e-5


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean", "max"])
def test_prompts_equal_sentence_transformers(mode, include_prompt, tiny_path, tmp_path):
    model = saved(
        tiny_path,
        tmp_path,
        Pooling(32, pooling_mode=mode, include_prompt=include_prompt),
        Normalize(),
        prompts={"query": "query: find this ", "passage": "passage: "},
        default_prompt_name="passage",
    )
    ours = MultiLoRAT.from_pretrained(tmp_path, device="cpu")
    for name in ("query", "passage", None):
        assert np.abs(ours.embed(TEXTS, prompt_name=name) - model.encode(TEXTS, prompt_name=name)).max() <= 2e-5
    for name in ("unknown", ""):
        with pytest.raises(InputError, match="passage"):
            ours.embed(TEXTS, prompt_name=name)


def test_a_prompt_that_is_cut_off_takes_no_token_of_the_text_along(tiny_path, tmp_path):
    saved(tiny_path, tmp_path, Pooling(32, include_prompt=False), prompts={"query": "find this now "})
    ours = MultiLoRAT.from_pretrained(tmp_path, device="cpu")
    prompted = ours.base.encode(["x " * 600], ours.base.recipe, prompt_name="query", direction="left")
    plain = ours.base.encode(["x " * 600], ours.base.recipe, direction="left")
    assert (prompted[0].ids, prompted[0].skip) == (plain[0].ids, 1)
    short = ours.base.encode(["x " * 508], ours.base.recipe, prompt_name="query", direction="left")
    assert short[0].skip == 1 + 2  # the special token, and what is left of the prompt's three


def test_dense_normalize_length_and_case_equal_sentence_transformers(tiny_path, tmp_path):
    torch.manual_seed(0)
    modules = Pooling(32), Dense(32, 8), Dense(8, 6, bias=False, activation_function=torch.nn.Identity()), Normalize()
    model = saved(tiny_path, tmp_path, *modules, transformer={"max_seq_length": 12, "do_lower_case": True})
    ours = MultiLoRAT.from_pretrained(tmp_path, device="cpu")
    assert ours.base.recipe.max_length == 12
    assert np.abs(ours.embed(TEXTS) - model.encode(TEXTS)).max() <= 2e-5


def test_an_adapter_s_own_recipe_wins(tiny_path, tmp_path):
    adapter = make_peft(tiny_path, tmp_path / "adapter", r=4).directory
    server = MultiLoRAT.from_pretrained(tiny_path, device="cpu")
    with_base_recipe = server.embed(TEXTS[:3], server.load(adapter))
    saved(tiny_path, tmp_path / "st", Pooling(32, pooling_mode="cls"), Normalize(), transformer={"max_seq_length": 8})
    for name in (
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling",
        "2_Normalize",
    ):
        source = tmp_path / "st" / name
        if source.is_dir():
            shutil.copytree(source, adapter / name)
        elif source.exists():
            shutil.copy(source, adapter)
    slot = server.load(adapter)
    assert slot.adapter.recipe.pooling == ("cls",)
    model = SentenceTransformer(str(tiny_path), device="cpu")
    model[1].pooling_mode = "cls"
    from peft import PeftModel

    model[0].auto_model = PeftModel.from_pretrained(model[0].auto_model, adapter)
    expected = model.encode(TEXTS[:3], normalize_embeddings=True)
    assert np.abs(server.embed(TEXTS[:3], slot) - expected).max() <= 2e-5
    assert np.abs(with_base_recipe - expected).max() > 1e-3


def recipe_files(directory, modules, **files):
    (directory / "modules.json").write_text(json.dumps(modules))
    for name, content in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))


POOL = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}


@pytest.mark.parametrize(
    ("modules", "files", "error", "says"),
    [
        ([{"type": "x.WordWeights", "path": ""}], {}, UnsupportedAdapterError, "WordWeights"),
        ([POOL], {"1_Pooling__config": {"pooling_mode": "median"}}, UnsupportedAdapterError, "median"),
        ([POOL], {"1_Pooling__config": {}}, UnsupportedAdapterError, "missing"),
        ([POOL], {}, AdapterFileError, "config.json is missing"),
        ([{"type": "x.Transformer", "path": ""}], {}, UnsupportedAdapterError, "Pooling"),
        ([{"type": "x.Pooling", "path": "../../etc"}], {}, AdapterFileError, "outside"),
        ([{"type": 3}], {}, AdapterFileError, "modules.json"),
        ({}, {}, AdapterFileError, "list"),
        ([{"type": "x.Transformer", "path": ""}, POOL], {"sentence_bert_config": {"max_seq_length": "9"}}, AdapterFileError, "max_seq_length"),
        ([POOL], {"1_Pooling__config": {"pooling_mode": "cls"}, "config_sentence_transformers": {"prompts": {"a": 1}}}, AdapterFileError, "prompts"),
        ([POOL], {"1_Pooling__config": {"pooling_mode": "cls"}, "config_sentence_transformers": {"default_prompt_name": "q"}}, AdapterFileError, "'q'"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_honoured_are_refused(modules, files, error, says, tmp_path):
    recipe_files(tmp_path, modules, **files)
    with pytest.raises(error, match=says):
        read_recipe(tmp_path)


def test_old_pooling_files_are_read(tmp_path):
    old = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    recipe_files(tmp_path, [POOL], **{"1_Pooling__config": old})
    assert read_recipe(tmp_path) == Recipe(pooling=("cls",), normalize=False)


def test_old_pooling_modes_stand_in_their_own_order(tiny_path, tmp_path):
    saved(tiny_path, tmp_path, Pooling(32))
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32} | flags))
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    assert np.abs(MultiLoRAT.from_pretrained(tmp_path, device="cpu").embed(TEXTS) - expected).max() <= 2e-5


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [("sentence_bert_config.json", "transformer_task", "fill-mask"), ("sentence_bert_config.json", "module_output_name", "logits"),
     ("sentence_bert_config.json", "modality_config", {"text": {"method": "forward", "method_output_name": "pooler_output"}}),
     ("sentence_bert_config.json", "processing_kwargs", {"text": {"max_length": 8}}), ("sentence_bert_config.json", "query_length", 8),
     ("sentence_bert_config.json", "document_length", 8), ("sentence_bert_config.json", "query_expansion", {"strategy": "pad"}),
     ("tokenizer_config.json", "truncation_side", "left")],
)  # fmt: skip
def test_what_changes_vectors_and_is_not_computed_is_refused(file, field, value, tiny_path, tmp_path):
    saved(tiny_path, tmp_path, Pooling(32))
    assert read_recipe(tmp_path).pooling == ("mean",)
    (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | {field: value}))
    with pytest.raises(UnsupportedAdapterError, match=f"{file}: {field}="):
        read_recipe(tmp_path)


def test_a_directory_without_one_has_none_unless_half_of_it_is_there(tmp_path):
    assert read_recipe(tmp_path) is None
    (tmp_path / "1_Pooling").mkdir()
    with pytest.raises(AdapterFileError, match=r"modules\.json"):
        read_recipe(tmp_path)
