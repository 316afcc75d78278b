"""Somebody's BERT with one mistake, in plain PyTorch: its cause is named, in float64 and float32.

Nothing of the ports in `port.py` is minibert's: a guess that made a mistake in another way than
people make it would not be found again here.
"""

from __future__ import annotations

from typing import Any

import pytest
from traces import NANO

from minibert.verify.compare import compare
from minibert.verify.diagnosis import diagnose
from minibert.verify.trace.format import Trace
from minibert.verify.trace.writing import setup_of

pytestmark = pytest.mark.crosscheck

KEY = "bert.encoder.layer.1.attention.self.key.weight"
UNMASKED = "the attention mask is not applied: padding is attended to"
CAUSES = {
    # ---- embeddings ----
    "embeddings times √H": "the embeddings' sum is multiplied by √(hidden size)",
    "word embeddings times √H": "word embeddings are multiplied by √(hidden size)",
    "no position embeddings": "the position embeddings are not added",
    "no token types": "token_type_ids are ignored (all 0)",
    "positions from 1": "positions are off by one (counted from 1)",
    "positions from 2, wrapped": "positions are off by two (as in RoBERTa)",
    "no padding_idx": "the padding token's row receives a gradient",
    # ---- layer norm and residual ----
    "eps of 1e-5": "layer_norm_eps is 1e-05, not 1e-12",
    "eps of 1e-5 from layer 1 on":
        "layer_norm_eps is 1e-05, not 1e-12, but only in layer 1's layer norms",
    "eps of 1e-5 in one norm":
        "layer_norm_eps is 1e-05, not 1e-12, but only in layer 1's layer norm after attention",
    "eps of 1e-5 in the embeddings":
        "layer_norm_eps is 1e-05, not 1e-12, but only in the embeddings' layer norm",
    "eps of 1e-5 in the encoder":
        "layer_norm_eps is 1e-05, not 1e-12, but only in the encoder's layer norms",
    "norms before the sub-layers":
        "layer norm comes before each sub-layer, not after its residual connection (pre-LN)",
    "norms before the residual":
        "layer norm comes before the residual connection is added: x + LN(sub-layer)",
    "eps beside the root": "eps (1e-05) is added to the standard deviation, not the variance",
    "sample variance": "layer norm divides by the sample variance (n − 1)",
    "norm's weight used as 1 + w": "layer norm multiplies by 1 + weight",
    "no norm of the embeddings": "the embeddings' layer norm is missing",
    "no residual after attention": "the residual connections after attention are missing",
    "no residual after feed-forward":
        "the residual connections after the feed-forward network are missing",
    "no residual in the last layer":
        "layer 1's residual connection after the feed-forward network is missing",
    "the layer's input twice":
        "the residual after the feed-forward network is the layer's input, not the network's input",
    # ---- attention ----
    "scores not divided": "attention scores are not divided by √(head size)",
    "scores divided by √H": "attention scores are divided by √(hidden size), not √(head size)",
    "query scaled before its bias":
        "the query is divided by √(head size) before its bias is added",
    "softmax over the queries": "softmax runs over the queries, not over the keys",
    "softmax over the queries, mask of -10000": "softmax runs over the queries, not over the keys",
    "softmax over the queries, mask filled in": "softmax runs over the queries, not over the keys",
    "one head": "num_attention_heads is 1, not 2",
    "heads neither split nor joined by a transposition":
        "heads are split and joined by a reshape, without a transposition",
    "heads not split by a transposition":
        "heads are split by a reshape, without a transposition",
    "heads not joined by a transposition":
        "the heads' contexts are joined by a reshape, without a transposition",
    # ---- mask ----
    "no mask": f"{UNMASKED}; or the first row's attention mask is used for all rows",
    "mask of the first row": f"{UNMASKED}; or the first row's attention mask is used for all rows",
    "mask inverted, added": "the attention mask is inverted (1 for padding)",
    "mask inverted, filled": "the attention mask is inverted (1 for padding)",
    "mask of -1": "the attention mask is added as 0 and 1 (or −1 and 0), not as −∞ and 0",
    "mask of -10": "the attention mask adds −10 for padding, which is not enough",
    "mask of +10000": "the attention mask is added with the wrong sign",
    "mask multiplied": "scores are multiplied by the mask, not set to −∞",
    "probabilities masked after the softmax":
        "the mask is multiplied onto the probabilities, after the softmax",
    "causal mask": "attention is causal: a token attends to itself and those before it alone",
    "mask on the queries": "the attention mask is applied to the queries, not to the keys",
    # ---- activation ----
    "GELU by tanh":
        "the activation is GELU by tanh (hidden_act gelu_new), not GELU by the true erf",
    "GELU by tanh, a digit lost": "the activation is GELU by tanh with 0.44715, not 0.044715",
    "GELU by erf(x)": "GELU takes erf(x), not erf(x/√2)",
    "SiLU": "the activation is x·sigmoid(x) (SiLU)",
    "ReLU": "the activation is ReLU, not GELU by the true erf",
    # ---- weights ----
    "a weight transposed": f"{KEY} is transposed",
    "every query transposed": "the weights of every layer's attention.self.query are transposed",
    "weights read as (in, out)":
        "all linear weights are stored (out, in), but read as (in, out)",
    "queries of two layers exchanged":
        "attention.self.query of layer 0 and of layer 1 are exchanged",
    "no bias of the classifier": "classifier.bias is not added",
    "no bias of the values": "the bias of every layer's attention.self.value is not added",
    "layer 0 everywhere": "every layer has the weights of layer 0",
    # ---- pooler and loss ----
    "pooler on the last token": "the pooler takes the last token, not the first",
    "pooler on the last column":
        "the pooler takes the last column, which may be padding, not the first token",
    "pooler on the mean": "the pooler takes the mean of the tokens, not the first",
    "pooler on the mean with padding":
        "the pooler takes the mean of a whole row, padding too, not the first token",
    "pooler without tanh": "the pooler lacks its tanh",
    "label smoothing": "labels are smoothed by 0.1",
    "label smoothing of the others":
        "labels are smoothed by 0.1, shared by the other classes alone",
    "softmax before the loss": "the cross-entropy is given probabilities, not logits",
    "loss summed": "the loss is a sum, not a mean",
    # ---- gradients ----
    "gradients of two runs":
        "every parameter's gradient is multiplied by 2 (accumulated twice, or a loss scale is left "
        "in)",
    "loss scale left in":
        "every gradient is multiplied by 1024 (accumulated 1024 times, or a loss scale is left in)",
}  # fmt: skip
TRAINED = {
    "decay on everything": "weight decay applies to everything, biases and layer norms too",
    "no decay": "there is no weight decay",
    "learning rate of 5e-5": "lr is 5e-05, not 0.001",
    "learning rate of 2e-3": "lr is 0.002, not 0.001",
    "Adam for AdamW":
        "the update is that of adam, not adamw_torch: weight decay added to the gradient (L2)",
    "first moment alone corrected": "Adam's first moment alone is corrected for its bias",
    "second moment alone corrected": "Adam's second moment alone is corrected for its bias",
    "uphill": "the update goes uphill: its sign is wrong",
    "no clipping": "the gradient is not clipped by the norm of all of it",
    "a weight transposed": f"{KEY} is transposed",
}  # fmt: skip
IN_FLOAT32 = {
    "mask of +10000": "the attention mask is inverted (1 for padding); or the attention mask is "
        "added with the wrong sign",
    "no decay": "there is no weight decay; or weight_decay is 0.0001, not 0.01",
}  # fmt: skip
"""Where rounding hides the difference, both are said."""
IN_FLOAT64 = {
    "decay after the step": "weight decay comes after the step, not before it",
    "clipped by the norm alone":
        "the gradient is clipped by max_norm/norm, not by max_norm/(norm + 1e-6)",
    "AMSGrad": "the second moment never shrinks (AMSGrad)",
}  # fmt: skip


DROPPED = {
    "dropout not scaled": "what dropout keeps is not scaled",
    "dropout scaled by 1/p": "what dropout keeps is scaled by 1/p, not by 1/(1 − p)",
    "no bert.embeddings.dropout": "the embeddings are not dropped",
    "no dropout": "the classifier's input is not dropped",
}


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_port_is_not_accused(dtype: str, nano: Trace) -> None:
    pytest.importorskip("torch", reason="the ports are PyTorch's")
    from port import Port

    port = Port(setup_of(nano), dtype)
    for mine in (port.run(), port.train()):
        assert compare(mine, nano, dtype=dtype).passed


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mistake", CAUSES | TRAINED)
def test_the_cause_is_named(mistake: str, dtype: str, nano: Trace) -> None:
    """And no other, unless the two cannot be told apart."""
    pytest.importorskip("torch", reason="the ports are PyTorch's")
    from port import Port

    setup = setup_of(nano)
    port, mine = Port(setup, dtype, mistake), dict[str, Any]()
    if mistake in CAUSES:
        mine |= port.run()
    if mistake in TRAINED:
        mine |= port.train()
    diagnosis = diagnose(compare(mine, nano, dtype=dtype), nano, setup)
    causes = CAUSES | TRAINED | (IN_FLOAT32 if dtype == "float32" else {})
    assert str(diagnosis) == causes[mistake]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mistake", ["", *DROPPED])
def test_the_cause_in_dropout_is_named(mistake: str, dtype: str, nano: Trace) -> None:
    """With the trace's masks; a dropout that does nothing hands in what it was given."""
    pytest.importorskip("torch", reason="the ports are PyTorch's")
    from port import Port

    keep = "dropout/keep/"
    masks = {n.removeprefix(keep): nano.read(n) for n in nano.names() if n.startswith(keep)}
    setup = setup_of(nano)
    found = Port(setup, dtype, mistake, masks).run()
    mine = {f"dropout/{n}": a for n, a in found.items() if f"dropout/{n}" in nano.entries}
    comparison = compare(mine, nano, dtype=dtype)
    assert comparison.passed == (not mistake)
    if mistake:
        assert str(diagnose(comparison, nano, setup)) == DROPPED[mistake]


@pytest.mark.parametrize("mistake", IN_FLOAT64)
def test_what_float32_does_not_see(mistake: str, nano: Trace) -> None:
    """lr²·weight_decay of a decay after the step, 10⁻⁶ beside the norm, moments that shrink."""
    pytest.importorskip("torch", reason="the ports are PyTorch's")
    from port import Port

    setup = setup_of(nano)
    mine = Port(setup, "float64", mistake).train()
    assert diagnose(compare(mine, nano), nano, setup).causes == (IN_FLOAT64[mistake],)


UNKNOWN = ("Mish", "scores divided by 3", "mean absolute deviation", "decay on the rest alone")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mistake", UNKNOWN)
def test_a_mistake_that_no_guess_makes_gets_no_cause(mistake: str, dtype: str, nano: Trace) -> None:
    """Nor a part of one."""
    pytest.importorskip("torch", reason="the ports are PyTorch's")
    from port import Port

    setup = setup_of(nano)
    port = Port(setup, dtype, mistake)
    comparison = compare(port.run() | port.train(), nano, dtype=dtype)
    assert not comparison.passed
    assert str(diagnose(comparison, nano, setup)).startswith("unknown: none of ")
