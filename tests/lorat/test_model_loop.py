"""LoRAT in a loop of one's own: optimizers, state dicts through wrappers, Accelerate, autocast, torch.compile."""

import copy
import json
import math

import accelerate
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from lorat import LoRAT, MultiLoRAT
from lorat.errors import ConfigError

TEXTS, LABELS = ["good fine great", "bad awful poor", "good great things here", "so bad"], [1, 0, 1, 0]
HIDDEN, INNER, LAYERS = 32, 64, 3
KINDS = {"embedding": BertModel, "classes": BertForSequenceClassification}


@pytest.fixture(scope="module")
def batch(tiny_path):
    tokens = AutoTokenizer.from_pretrained(tiny_path)(TEXTS, padding=True, return_tensors="pt")
    return dict(tokens) | {"labels": torch.tensor(LABELS)}


def classifier(tiny_path, **options):
    torch.manual_seed(3)
    return BertForSequenceClassification.from_pretrained(tiny_path, num_labels=2, **options)


def wrapped(tiny_path, **options):
    model = classifier(tiny_path)
    torch.manual_seed(4)
    return LoRAT(model, **{"rank": 4, "tune": "qkovid", "dropout": 0.1} | options)


def train(model, batch, steps=6, seed=5, groups=None):
    """The losses, one a step."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(groups or [p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def loss_without_dropout(model, batch):
    return model.eval()(**batch).loss.item()


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def frozen(model):
    return {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def stirred(model):
    """With a B that is not zero, so that A has a gradient."""
    torch.manual_seed(6)
    for _, layer in model.adapted():
        nn.init.normal_(layer.lora_B, std=0.2)
    return model


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def close(one, other, **bounds):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **bounds)


def test_a_loop_learns_and_leaves_the_base_alone(tiny_path, batch):
    model = wrapped(tiny_path)
    base, before = frozen(model), loss_without_dropout(model, batch)
    train(model, batch, steps=80, groups=model.parameter_groups(2e-3, ratio=1))
    assert loss_without_dropout(model, batch) < 0.5 * before
    assert same(base, frozen(model))


def test_gradients_and_steps_are_those_of_peft(tiny_path, batch):
    model = stirred(wrapped(tiny_path, dropout=0.0)).eval()
    names = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=32, target_modules=names)
    peft = get_peft_model(classifier(tiny_path), config).eval()
    theirs = dict(peft.named_parameters())
    pairs = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            other = name.replace("model.", "base_model.model.", 1)
            other = other.replace("classifier.", "classifier.modules_to_save.default.")
            pairs[name] = theirs[f"{other}.default.weight" if "lora_" in other else other]
            pairs[name].data.copy_(parameter.data)
    assert {id(p) for p in pairs.values()} == {id(p) for p in peft.parameters() if p.requires_grad}
    torch.testing.assert_close(model(**batch).logits, peft(**batch).logits, atol=1e-5, rtol=0)
    ours = gradients(model, batch)
    peft(**batch).loss.backward()
    close(ours, {name: parameter.grad for name, parameter in pairs.items()}, atol=1e-5, rtol=1e-4)


# ---- state dicts


def test_a_state_dict_holds_what_trains_and_is_enough(tiny_path, batch):
    model = wrapped(tiny_path)
    train(model, batch)
    state = values(model)
    assert len(state) == LAYERS * 6 * 2 + 2
    assert state.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    again = wrapped(tiny_path)
    base = frozen(again)
    assert not same(values(again), state)
    assert str(again.load_state_dict(state, strict=True)) == "<All keys matched successfully>"
    assert same(values(again), state) and same(frozen(again), base)


@pytest.mark.parametrize("assign", [False, True])
def test_a_whole_state_dict_is_taken_too(assign, tiny_path):
    model, again = stirred(wrapped(tiny_path)), wrapped(tiny_path)
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.add_(1)
    whole = {f"model.{name}": tensor.clone() for name, tensor in model.model.state_dict().items()}
    again.load_state_dict(whole, assign=assign)
    assert same(again.model.state_dict(), model.model.state_dict())
    assert {n for n, p in again.named_parameters() if p.requires_grad} == set(values(model))


def test_assigned_values_leave_the_base_where_it_is(tiny_path):
    model, again = stirred(wrapped(tiny_path)), wrapped(tiny_path)
    base = {name: p.data_ptr() for name, p in again.named_parameters() if not p.requires_grad}
    again.load_state_dict(values(model), assign=True)
    assert same(values(again), values(model))
    assert base == {name: p.data_ptr() for name, p in again.named_parameters() if not p.requires_grad}


def test_what_a_state_dict_lacks_or_has_too_much_is_named(tiny_path):
    model = wrapped(tiny_path)
    state = values(model)
    name = "model.bert.encoder.layer.1.intermediate.dense.lora_B"
    lacking = {key: tensor for key, tensor in state.items() if key != name}
    with pytest.raises(RuntimeError, match="Missing key") as caught:
        model.load_state_dict(lacking)
    assert name in str(caught.value) and str(caught.value).count("lora_") == 1
    assert model.load_state_dict(lacking, strict=False).missing_keys == [name]
    with pytest.raises(RuntimeError, match=r"Unexpected key.*typo"):
        model.load_state_dict(state | {"model.typo": torch.zeros(1)})
    whole = {f"model.{key}": tensor for key, tensor in model.model.state_dict().items()}
    del whole["model.bert.embeddings.LayerNorm.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*embeddings\.LayerNorm\.bias"):
        model.load_state_dict(whole)
    with pytest.raises(RuntimeError, match="size mismatch"):
        wrapped(tiny_path, rank=2).load_state_dict(state)


class Outer(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner = nn.ModuleDict({"lorat": model})
        self.extra = nn.Linear(2, 2)


WRAPPERS = {
    "a module": Outer,
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "two": lambda model: nn.DataParallel(Outer(model)),
    "averaged": AveragedModel,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_it_holds_through_what_stands_around_the_model(name, tiny_path):
    inside, other = stirred(wrapped(tiny_path)), wrapped(tiny_path)
    around, again = WRAPPERS[name](inside), WRAPPERS[name](other)
    state = around.state_dict()
    names = [key for key in state if "model." in key]
    assert len(names) == LAYERS * 6 * 2 + 2 and not any("embeddings" in key for key in names)
    again.load_state_dict(state, strict=True)
    assert same(around.state_dict(), again.state_dict())
    if name != "averaged":
        assert same(values(inside), values(other))
    with pytest.raises(RuntimeError, match=names[0].replace(".", r"\.")):
        again.load_state_dict({key: tensor for key, tensor in state.items() if key != names[0]})


def test_a_distributed_model_trains_and_keeps_what_trains(tiny_path, batch, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        plain, inside = wrapped(tiny_path), wrapped(tiny_path)
        model = nn.parallel.DistributedDataParallel(inside)
        assert train(model, batch) == train(plain, batch)
        assert same(values(plain), values(inside))
        assert list(model.state_dict()) == [f"module.{name}" for name in values(plain)]
    finally:
        torch.distributed.destroy_process_group()


def test_accelerate_saves_its_state_and_takes_it_back(tiny_path, batch, tmp_path):
    accelerator = Accelerator(cpu=True)
    plain = wrapped(tiny_path)
    model, optimizer = accelerator.prepare(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2))

    def step():
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()

    step()
    accelerator.save_state(str(tmp_path))
    expected = values(plain)
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * sum(t.numel() for t in expected.values()) + 10_000
    step()
    after = values(plain)
    accelerator.load_state(str(tmp_path))
    assert same(values(plain), expected)
    step()
    assert same(values(plain), after)
    accelerate.utils.save(model.state_dict(), str(tmp_path / "state.pt"))
    assert same(torch.load(tmp_path / "state.pt"), after)


def test_a_copy_is_a_model_of_its_own(tiny_path, batch):
    model = stirred(wrapped(tiny_path))
    before, other = values(model), copy.deepcopy(model)
    train(other, batch)
    assert same(values(model), before) and not same(values(other), before)
    assert values(other).keys() == before.keys()


def test_loading_drops_what_was_merged(tiny_path, batch, tmp_path):
    model, other = stirred(wrapped(tiny_path)).eval(), wrapped(tiny_path).eval()
    model.save(tmp_path)
    expected = model(**batch).logits
    for load in (lambda: other.load_state_dict(model.state_dict()), lambda: other.load(tmp_path)):
        other.reset()
        other.merge()
        load()
        assert torch.equal(other(**batch).logits, expected)


def test_a_refused_adapter_changes_nothing(tiny_path, tmp_path):
    model, other = wrapped(tiny_path), stirred(wrapped(tiny_path))
    before = values(model)
    other.save(tmp_path)
    torch.manual_seed(0)
    more = LoRAT(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=5), 4, tune="qkovid")
    kept = values(more)
    with pytest.raises(ConfigError, match="classifier"):
        more.load(tmp_path)
    assert same(values(more), kept)
    model.load(tmp_path)
    assert not same(values(model), before)


def test_what_a_person_unfreezes_is_kept_as_well(tiny_path):
    model = wrapped(tiny_path)
    model.bert.embeddings.LayerNorm.requires_grad_(True)
    name = "model.bert.embeddings.LayerNorm.weight"
    assert name in model.state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key.*LayerNorm"):
        model.load_state_dict(values(wrapped(tiny_path)))
    model.requires_grad_(False)
    assert len(model.state_dict()) == LAYERS * 6 * 2 + 2  # to infer with it changes nothing


def test_part_trains_everything_but_what_is_wrapped(tiny_path, batch, tmp_path):
    model = wrapped(tiny_path, mode="part", tune="qv")
    linears = {name for name, _ in model.named_parameters() if ".linear." in name}
    assert len(linears) == LAYERS * 2 * 2
    assert set(frozen(model)) == linears
    before, state = frozen(model), values(model)
    train(model, batch, steps=2)
    assert same(before, frozen(model))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, state[name])}
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    again = wrapped(tiny_path, mode="part", tune="qv")
    again.load_state_dict(model.state_dict())
    assert same(values(again), values(model))
    with pytest.raises(RuntimeError, match="embeddings"):
        again.load_state_dict({name: t for name, t in model.state_dict().items() if "embeddings" not in name})
    for refused in (model.reset, lambda: model.save(tmp_path / "no")):
        with pytest.raises(ConfigError, match="mode='part'"):
            refused()
    assert not (tmp_path / "no").exists()


# ---- one adapter after another


@pytest.mark.parametrize("saved", [("classifier",), ("classifier", "pooler")])
def test_adapters_trained_one_after_another_do_not_disturb_each_other(saved, tiny_path, batch, tmp_path):
    model = wrapped(tiny_path, modules_to_save=saved)
    base = frozen(model)
    train(model, batch, seed=1)
    model.save(tmp_path / "first")
    files = {path: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    first = values(model)
    torch.manual_seed(4)
    model.reset()
    fresh = wrapped(tiny_path, modules_to_save=saved)
    assert same(values(model), values(fresh))
    flipped = batch | {"labels": 1 - batch["labels"]}
    assert train(model, flipped, seed=2) == train(fresh, flipped, seed=2)
    assert same(values(model), values(fresh)) and not same(values(model), first)
    model.save(tmp_path / "second")
    fresh.save(tmp_path / "fresh")
    for path in (tmp_path / "fresh").iterdir():
        assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()
    assert all(path.read_bytes() == content for path, content in files.items())
    model.load(tmp_path / "first")
    assert same(values(model), first) and same(frozen(model), base)


def test_reset_leaves_no_gradient_and_nothing_merged(tiny_path, batch):
    model = stirred(wrapped(tiny_path)).eval()
    expected = classifier(tiny_path).eval()(**batch).logits
    gradients(model, batch)
    model.merge()
    model.reset()
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model(**batch).logits, expected)


# ---- optimizers


def test_lora_plus_groups(tiny_path):
    model = wrapped(tiny_path, rank=2, tune="qv")
    rates = lambda groups: {g["name"]: (g["lr"], g["weight_decay"]) for g in groups}  # noqa: E731
    groups = model.parameter_groups(1e-3, ratio=8, head_learning_rate=5e-4, weight_decay=0.1)
    assert rates(groups) == {
        "lora_A": (1e-3, 0.1), "lora_B": (8e-3, 0.1), "head": (5e-4, 0.1), "head, no decay": (5e-4, 0.0)
    }  # fmt: skip
    sizes = {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
    matrices = LAYERS * 2 * 2 * HIDDEN
    assert sizes == {"lora_A": matrices, "lora_B": matrices, "head": 2 * HIDDEN, "head, no decay": 2}
    assert rates(model.parameter_groups(1e-3)) == {
        "lora_A": (1e-3, 0), "lora_B": (16e-3, 0), "head": (1e-3, 0), "head, no decay": (1e-3, 0)
    }  # fmt: skip
    assert [g["name"] for g in LoRAT(BertModel.from_pretrained(tiny_path)).parameter_groups(1)] == ["lora_A", "lora_B"]


@pytest.mark.parametrize("mode", ["all", "part"])
def test_lora_plus_groups_hold_what_trains_once(mode, tiny_path, batch):
    model = wrapped(tiny_path, mode=mode)
    groups = model.parameter_groups(1e-3, weight_decay=0.01)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])
    losses = train(model, batch, steps=20, groups=groups)
    assert losses[-1] < losses[0]


def test_lora_plus_moves_b_by_its_ratio(tiny_path, batch):
    """The first step of sign descent moves every value by its rate."""
    model = stirred(wrapped(tiny_path))
    before = values(model)
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-4, ratio=4, head_learning_rate=1e-5), eps=1e-20)
    model(**batch).loss.backward()
    optimizer.step()
    for name, now in values(model).items():
        step = 1e-4 if "lora_A" in name else 4e-4 if "lora_B" in name else 1e-5
        moved = (now - before[name]).abs()
        assert moved.median().item() == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0}, {"learning_rate": -1}, {"ratio": 0}, {"ratio": math.nan}, {"head_learning_rate": 0}]
)
def test_rates_that_cannot_be_honoured_are_named(wrong, tiny_path):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        wrapped(tiny_path).parameter_groups(**{"learning_rate": 1e-3} | wrong)


# ---- sizes


@pytest.mark.parametrize("tune", ["q", "qv", "qkovid"])
@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize(("kind", "head"), [("embedding", 0), ("classes", 2 * HIDDEN + 2)])
def test_sizes_are_those_computed_by_hand(tune, rank, kind, head, tiny_path, tmp_path):
    square, wide = rank * (HIDDEN + HIDDEN), rank * (HIDDEN + INNER)
    by_tune = {"q": square, "qv": 2 * square, "qkovid": 4 * square + 2 * wide}
    expected = LAYERS * by_tune[tune] + head
    model = LoRAT(KINDS[kind].from_pretrained(tiny_path), rank=rank, tune=tune)
    whole = sum(p.numel() for p in KINDS[kind].from_pretrained(tiny_path).parameters())
    assert model.trainable_parameters() == (expected, whole + expected - head)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == expected
    model.save(tmp_path)
    content = (tmp_path / "adapter_model.safetensors").read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == 4 * expected
    tensors = json.loads(content[8 : 8 + header])
    assert len(set(tensors) - {"__metadata__"}) == 2 * LAYERS * len(tune) + (2 if head else 0)
    assert MultiLoRAT.from_pretrained(tiny_path, device="cpu").load(tmp_path).adapter.parameters == expected


# ---- autocast, half precision, torch.compile


def test_autocast_keeps_the_adapter_and_its_gradients_in_float32(tiny_path, batch):
    model = stirred(wrapped(tiny_path, dropout=0.0)).eval()
    exact = gradients(model, batch)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
        products = model.bert.encoder.layer[0].attention.self.query(torch.ones(1, 2, HIDDEN))
    output.loss.backward()
    assert products.dtype == torch.bfloat16
    assert torch.isfinite(output.loss)
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert {p.dtype for p in model.parameters()} == {grad.dtype for grad in got.values()} == {torch.float32}
    assert got.keys() == exact.keys()
    for name, grad in got.items():
        assert torch.cosine_similarity(grad.flatten(), exact[name].flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beside_a_half_base_the_adapter_is_float32_as_in_peft(dtype, tiny_path, batch):
    model = stirred(LoRAT(classifier(tiny_path, dtype=dtype), rank=4, tune="qv", modules_to_save=())).eval()
    config = LoraConfig(r=4, lora_alpha=32, target_modules=["query", "value"])
    peft = get_peft_model(classifier(tiny_path, dtype=dtype), config)
    for site, layer in model.adapted():
        theirs = peft.base_model.model.bert.get_submodule(site.module)
        assert layer.lora_A.dtype == layer.lora_B.dtype == theirs.lora_A.default.weight.dtype == torch.float32
        theirs.lora_A.default.weight.data.copy_(layer.lora_A)
        theirs.lora_B.default.weight.data.copy_(layer.lora_B)
    got, expected = model(**batch).logits, peft.eval()(**batch).logits
    assert got.dtype == expected.dtype == dtype
    torch.testing.assert_close(got, expected, atol={torch.bfloat16: 0.02, torch.float16: 2e-3}[dtype], rtol=0)
    losses = train(model, batch, steps=15)
    assert losses[-1] < losses[0]
    assert model.bert.embeddings.word_embeddings.weight.dtype == dtype


def shallow(tiny_path):
    """One layer, which compiles in seconds; without dropout, whose draws differ when compiled."""
    model = classifier(tiny_path, num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(4)
    return LoRAT(model, rank=4, tune="qkovid")


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_it_computes_the_same_gradients(autocast, tiny_path, batch):
    torch._dynamo.reset()
    model = stirred(shallow(tiny_path))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    def run(which):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = which(**batch).loss
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss}

    bound = {"atol": 2e-2, "rtol": 0.1} if autocast else {"atol": 1e-6, "rtol": 1e-5}
    close(run(compiled), run(model), **bound)


def test_compiled_it_trains_as_eager_and_sees_a_merge(tiny_path, batch):
    torch._dynamo.reset()
    eager, model = shallow(tiny_path), shallow(tiny_path)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert train(compiled, batch) == pytest.approx(train(eager, batch), abs=1e-5)
    close(values(model), values(eager), atol=1e-5, rtol=1e-3)
    model.eval()
    with torch.no_grad():
        unmerged = compiled(**batch).logits
        model.merge()
        model.bert.encoder.layer[0].intermediate.dense.merged.neg_()  # so that it shows that it is read
        expected = model(**batch).logits
        torch.testing.assert_close(compiled(**batch).logits, expected, atol=1e-5, rtol=0)
        model.unmerge()
        torch.testing.assert_close(compiled(**batch).logits, unmerged, atol=1e-6, rtol=0)
    assert (expected - unmerged).abs().max() > 1e-4
