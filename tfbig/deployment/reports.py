"""The records that stand beside an exported file. Plain data; loads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from tfbig.records import Record


@dataclass(frozen=True)
class Latency(Record):
    """How long one prediction of one example takes in LiteRT on this machine.

    Attributes:
        median_us: Median, in microseconds.
        p95_us: 95th percentile, in microseconds.
        runs: How many predictions were timed, after a warm-up.
        threads: Threads that LiteRT was allowed.
    """

    median_us: float
    p95_us: float
    runs: int
    threads: int


@dataclass(frozen=True)
class Proof(Record):
    """How the file's answers compare with the model's, on the same inputs.

    Errors are shares of the range of the model's own outputs (largest minus smallest).

    Attributes:
        inputs: "calibration" for the user's own rows; "synthetic" for random ones, drawn when none were given.
        rows: How many were run.
        mean_error: Mean absolute difference.
        max_error: Largest absolute difference.
        agreement: Share of rows for which both name the same class; None for a single output.
        tolerance: The mean error that the mode is allowed.
    """

    inputs: str
    rows: int
    mean_error: float
    max_error: float
    agreement: float | None
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the mean error is within the tolerance; NaN is not."""
        return self.mean_error <= self.tolerance


@dataclass(frozen=True)
class ExportReport(Record):
    """What an exported file is, and the evidence for it.

    Attributes:
        quantize: The mode it was made in; None for float32.
        bytes: Size of the file.
        gzip_bytes: Its size after gzip, level 9.
        ops: Operator and dtype, such as "CONV_2D int8", to how many there are.
        float_ops: The operators that compute in float.
        inputs: Name of each input to its dtype.
        outputs: Name of each output to its dtype.
        proof: The comparison with the model.
        latency: Time of one prediction.
    """

    quantize: str | None
    bytes: int
    gzip_bytes: int
    ops: Mapping[str, int]
    float_ops: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    proof: Proof
    latency: Latency

    def __str__(self) -> str:
        agreement = "" if self.proof.agreement is None else f", {self.proof.agreement:.2%} of labels agree"
        lines = [
            f"mode      {self.quantize or 'float32'}",
            f"size      {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped)",
            f"latency   {self.latency.median_us:.0f} µs median, {self.latency.p95_us:.0f} µs p95, "
            f"{self.latency.threads} thread(s)",
            f"proof     mean error {self.proof.mean_error:.2e} of the output range on {self.proof.rows} "
            f"{self.proof.inputs} rows{agreement}",
            f"ops       {', '.join(f'{count} {name}' for name, count in self.ops.items())}",
        ]
        if self.quantize == "int8" and self.float_ops:
            lines.append(f"in float  {', '.join(self.float_ops)}")
        return "\n".join(lines)
