"""Networks that Torch7's nngraph saved: their modules, their parameters, how they are wired.

A recurrence is unrolled over its steps. Which of its layers is which is read from what feeds it,
not from the order of the nodes, which is only one of those that a topological sort may give.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdn_ray.text.torch7 import Table, TorchObject

# The layers of a recurrence as the equations of `GatedRecurrence` and `ReluRecurrence` name them.
Weights = dict[str, TorchObject]


class Unfit(Exception):
    """The network is not one of those released."""


class Graph:
    """A graph of modules (nngraph), walked from its output back to its input.

    A node is its table `data`: `module`, and `mapindex`, whose entries 1, 2, … are the nodes that
    feed it. What stands for an input of the graph has no module.
    """

    def __init__(self, network: TorchObject) -> None:
        self._entrance = table(network, "innode", "data")
        self.output = self.feeding(table(network, "outnode", "data"), 1)[0]

    def chain(self) -> list[TorchObject]:
        """The modules of a graph that is a single line, first to last."""
        node, modules = self.output, []
        while node is not self._entrance:
            modules.append(self.module(node))
            if len(modules) > 100:
                raise Unfit("found a circle in the network")
            (node,) = self.feeding(node, 1)
        return modules[::-1]

    def feeding(self, node: Table, count: int, *classes: str) -> list[Table]:
        """The ``count`` nodes that feed ``node``, which is of one of ``classes``, if any given."""
        name = self.class_name(node)
        inputs = table(node, "mapindex").sequence()
        if (classes and name not in classes) or len(inputs) != count:
            expected = " or ".join(classes) or "a module"
            raise Unfit(f"found {name} of {len(inputs)} inputs for {expected} of {count}")
        if not all(isinstance(data, Table) for data in inputs):
            raise Unfit(f"found {name} fed by something other than a node")
        return inputs

    def module(self, node: Table) -> TorchObject:
        """The module of ``node``."""
        module = node.get("module")
        if not isinstance(module, TorchObject):
            raise Unfit(f"found {describe(module)} where a module should be")
        return module

    def class_name(self, node: Table) -> str:
        """The class of the module of ``node``; `no module` for others."""
        module = node.get("module")
        return module.class_name if isinstance(module, TorchObject) else "no module"

    def step(self, node: Table) -> int:
        """Which input of the graph ``node``, an nn.Identity, passes on, from 1."""
        (source,) = self.feeding(node, 1, "nn.Identity")
        # Older versions of nngraph feed inputs from one node, newer from one that splits a table.
        if source is self._entrance:
            inputs = table(source, "mapindex").sequence()
            return next((place for place, data in enumerate(inputs, 1) if data is node), 0)
        return source.get("selectindex")

    def linear(self, node: Table) -> tuple[TorchObject, Table]:
        """The nn.Linear of ``node``, alone in an nn.Sequential or bare, and what feeds it."""
        (source,) = self.feeding(node, 1, "nn.Sequential", "nn.Linear")
        module = self.module(node)
        if module.class_name == "nn.Linear":
            return module, source
        inner, names = modules_of(module)
        if names != ["nn.Linear"]:
            raise Unfit(f"found {names} in the recurrence, where an nn.Linear should be")
        return inner[0], source

    def sum_of_linears(
        self, node: Table, state: Table, step: int, names: tuple[str, str]
    ) -> Weights:
        """W x + U h of ``step``, by ``names`` of W and U; which is which shows in what feeds it."""
        found = {}
        for summand in self.feeding(node, 2, "nn.CAddTable"):
            layer, source = self.linear(summand)
            from_state = source is state
            if not from_state and self.step(source) != step:
                raise Unfit(f"found a layer of step {step} fed by neither its input nor the state")
            found[names[from_state]] = layer
        if len(found) != 2:
            raise Unfit(f"found step {step} without its input or without the state before it")
        return found


def recurrence(network: TorchObject) -> tuple[Weights, int]:
    """The layers of an unrolled recurrence by name, and its number of steps."""
    graph = Graph(network)
    (total,) = graph.feeding(graph.output, 1, "nn.MulConstant")
    scale = graph.module(graph.output).get("constant_scalar")
    if not isinstance(scale, int | float) or not 1e-3 <= scale <= 1:
        raise Unfit(f"found a factor {describe(scale)} where the mean over the steps should be")
    steps = round(1 / scale)
    states: list[Table] = []
    for _ in range(steps - 1):
        total, state = graph.feeding(total, 2, "nn.CAddTable")
        states.insert(0, state)
    gated = graph.class_name(total) == "nn.Tanh"
    (first,) = graph.feeding(total, 1, "nn.Tanh", "nn.ReLU")
    layer, source = graph.linear(first)
    if graph.step(source) != 1:
        raise Unfit("found a first step that is not fed by the first input")
    unrolled = [{"W": layer}]
    for before, (step, state) in zip([total, *states], enumerate(states, 2), strict=False):
        read = _gru_step if gated else _relu_step
        unrolled.append(read(graph, state, before, step))
    return _shared(unrolled), steps


def _gru_step(graph: Graph, state: Table, before: Table, step: int) -> Weights:
    """h = z ⊙ c + (1 − z) ⊙ h', as `FixedGRU.lua` builds it."""
    products = [
        graph.feeding(product, 2, "nn.CMulTable")
        for product in graph.feeding(state, 2, "nn.CAddTable")
    ]
    kept = [inputs for inputs in products if before in inputs]
    new = [inputs for inputs in products if before not in inputs]
    if len(kept) != 1 or len(new) != 1:
        raise Unfit(f"found step {step} that does not go on from the state before it")
    z, c = sorted(new[0], key=lambda node: graph.class_name(node) == "nn.Tanh")
    (rest,) = [node for node in kept[0] if node is not before] or [before]
    (negative,) = graph.feeding(rest, 1, "nn.AddConstant")
    (kept_gate,) = graph.feeding(negative, 1, "nn.MulConstant")
    factors = [graph.module(node).get("constant_scalar") for node in (rest, negative)]
    if factors != [1, -1] or kept_gate is not z:
        raise Unfit(f"found step {step} that does not keep 1 − z of the state before it")
    (gate_sum,) = graph.feeding(z, 1, "nn.Sigmoid")
    (candidate_sum,) = graph.feeding(c, 1, "nn.Tanh")
    gated_state = _gated_state(graph, candidate_sum)
    r = [node for node in graph.feeding(gated_state, 2, "nn.CMulTable") if node is not before]
    if len(r) != 1:
        raise Unfit(f"found step {step} whose reset gate does not act on the state before it")
    (reset_sum,) = graph.feeding(r[0], 1, "nn.Sigmoid")
    return (
        graph.sum_of_linears(gate_sum, before, step, ("W_z", "U_z"))
        | graph.sum_of_linears(reset_sum, before, step, ("W_r", "U_r"))
        | graph.sum_of_linears(candidate_sum, gated_state, step, ("W", "U"))
    )


def _gated_state(graph: Graph, candidate_sum: Table) -> Table:
    """r ⊙ h among what feeds the layers of a candidate."""
    sources = [graph.linear(node)[1] for node in graph.feeding(candidate_sum, 2, "nn.CAddTable")]
    found = [node for node in sources if graph.class_name(node) == "nn.CMulTable"]
    if len(found) != 1:
        raise Unfit("found a candidate state without r ⊙ h")
    return found[0]


def _relu_step(graph: Graph, state: Table, before: Table, step: int) -> Weights:
    """h = relu(W x + b + U h' + c), as `FixedRNN.lua` builds it."""
    (total,) = graph.feeding(state, 1, "nn.ReLU")
    return graph.sum_of_linears(total, before, step, ("W", "U"))


def _shared(unrolled: Sequence[Weights]) -> Weights:
    """The layers that all steps share; those of the second hold every name."""
    first = unrolled[min(1, len(unrolled) - 1)]
    for step, layers in enumerate(unrolled, 1):
        for name, layer in layers.items():
            for part, dimensions in (("weight", 2), ("bias", 1)):
                ours = parameter(first[name], part, dimensions)
                if not np.array_equal(ours, parameter(layer, part, dimensions)):
                    raise Unfit(f"found another {name} in step {step} than in the others")
    return first


def table(value: Table, *path: str) -> Table:
    """The table at ``path`` inside ``value``."""
    for name in path:
        inner = value.get(name)
        if not isinstance(inner, Table):
            raise Unfit(f"found {describe(inner)} as {name}, where a table should be")
        value = inner
    return value


def modules_of(container: TorchObject) -> tuple[list[TorchObject], list[str]]:
    """What a container holds, and the classes of these."""
    modules = table(container, "modules").sequence()
    if not all(isinstance(module, TorchObject) for module in modules):
        raise Unfit(f"found a {container.class_name} of something other than modules")
    return modules, [module.class_name for module in modules]


def parameter(layer: TorchObject, name: str, dimensions: int) -> np.ndarray:
    """The weight or bias of a layer, a tensor of so many dimensions."""
    value = layer.get(name)
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == dimensions
    if not fits or value.size > 2**26:
        raise Unfit(f"found {describe(value)} as the {name} of a {layer.class_name}")
    return value


def describe(value: Any) -> str:
    """What a value of a Torch7 file is, in a few words, for errors."""
    if isinstance(value, np.ndarray):
        return f"a tensor {value.shape}"
    if isinstance(value, TorchObject):
        return f"a {value.class_name[:60]!r}"
    if isinstance(value, Table):
        return "a table"
    return "nothing" if value is None else repr(value)[:60]
