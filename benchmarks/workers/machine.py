"""What the machine can do at most, in the same run: matrix products and copies."""

import torch

from benchmarks.workers.meter import serve


def make(case):
    """`case`: kind ("float32", "bfloat16" or "copy"), device; work in GFLOP or GB."""
    device = case.get("device", "cpu")
    torch.set_num_threads(1)
    if case["kind"] == "copy":
        source = torch.randn(50_000_000).to(device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source), 2 * source.nbytes / 1e9
    n, d, m = 4096, 1024, 2048
    x, w = (
        torch.randn(*shape).to(device, getattr(torch, case["kind"])) for shape in ((n, d), (d, m))
    )
    out = x @ w
    return lambda: torch.mm(x, w, out=out), 2 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
