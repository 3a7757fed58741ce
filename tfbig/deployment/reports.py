"""The records that stand beside an exported file. Plain data; loads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from tfbig.deployment.modes import is_integer
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
        agreement: Share of rows (or steps) for which both name the same class; None for a single value.
        tolerance: The mean error that is allowed.
        cosine: Of the angle between all the model's answers and all the file's, as vectors.
    """

    inputs: str
    rows: int
    mean_error: float
    max_error: float
    agreement: float | None
    tolerance: float
    cosine: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the mean error is within the tolerance; NaN is not."""
        return self.mean_error <= self.tolerance


@dataclass(frozen=True)
class FloatFile(Record):
    """The float32 file of the same model, timed in the same run.

    Attributes:
        bytes: Its size.
        latency: Of one thread.
        latency_all_threads: Of as many threads as the machine has cores; None where that is one.
    """

    bytes: int
    latency: Latency
    latency_all_threads: Latency | None = None


@dataclass(frozen=True)
class Trial(Record):
    """One mode that `quantize="auto"` looked at.

    Attributes:
        quantize: The mode.
        bytes: Size of its file; None where there is none.
        mean_error: Of its answers, as a share of the output's range; None where there is no file.
        refused: Why it was not taken; None for the one that was.
    """

    quantize: str | None
    bytes: int | None
    mean_error: float | None
    refused: str | None


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
        latency: Time of one prediction with one thread.
        latency_all_threads: With as many threads as the machine has cores; None where that is one.
        float_file: The same model's float32 file, for comparison; None where this is it, or there is none.
        arena_bytes: Estimate of the memory for tensors that a microcontroller's runtime needs.
        recurrent: Path of each recurrent layer to its form in the file: "fused", "loop" or "unrolled".
        ranges: Name of each input to the smallest and largest value among the rows of calibration and proof.
        compact: Whether dense kernels have one scale each.
        sparse: Whether kernels are stored without their zeros.
        refined: With `refine=True`, mean errors on rows of calibration that were held back, "before" and "after", as
            shares of the outputs' range; None where it was not asked for, or nothing of the file could be changed.
        sha256: Of the file's bytes, by which `LiteModel` knows the file again.
        converter_mib: The most memory that the converter's process had, in MiB.
        seconds: How long the conversion took.
        tried: What `quantize="auto"` looked at.
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
    latency_all_threads: Latency | None = None
    float_file: FloatFile | None = None
    arena_bytes: int | None = None
    recurrent: Mapping[str, str] | None = None
    ranges: Mapping[str, tuple[float, ...]] | None = None
    compact: bool = False
    sparse: bool = False
    refined: Mapping[str, float] | None = None
    sha256: str | None = None
    converter_mib: float | None = None
    seconds: float | None = None
    tried: tuple[Trial, ...] = ()

    def __str__(self) -> str:
        proof = self.proof
        agreement = "" if proof.agreement is None else f", {proof.agreement:.2%} of labels agree"
        cosine = "" if proof.cosine is None else f", cosine {proof.cosine:.6f}"
        ways = [way for way, taken in (("compact", self.compact), ("sparse", self.sparse)) if taken]
        lines = [
            f"mode      {', '.join([self.quantize or 'float32', *ways])}",
            f"size      {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped){self._beside_float('bytes')}",
            f"latency   {_words(self.latency)}{self._beside_float('latency')}",
        ]
        if self.latency_all_threads:
            lines.append(
                f"          {_words(self.latency_all_threads)}{self._beside_float('latency_all_threads')}"
            )
        if self.arena_bytes is not None:
            lines.append(f"arena     about {self.arena_bytes:,} bytes on a microcontroller")
        if self.refined:
            before, after = self.refined["before"], self.refined["after"]
            lines.append(f"refined   mean error {before:.2e} before, {after:.2e} after, on rows held back")
        lines += [
            f"proof     mean error {proof.mean_error:.2e} of the output range on {proof.rows} "
            f"{proof.inputs} rows{agreement}{cosine}",
            f"ops       {', '.join(f'{count} {name}' for name, count in self.ops.items())}",
        ]
        if is_integer(self.quantize) and self.float_ops:
            lines.append(f"in float  {', '.join(self.float_ops)}")
        if self.recurrent:
            lines.append(f"recurrent {', '.join(f'{name} {form}' for name, form in self.recurrent.items())}")
        lines += [f"tried     {_trial(trial)}" for trial in self.tried]
        return "\n".join(lines)

    def _beside_float(self, name: str) -> str:
        """In words, the ratio of one of the figures to the float32 file's."""
        own, beside = getattr(self, name), self.float_file and getattr(self.float_file, name)
        if not beside:
            return ""
        if isinstance(own, Latency):
            own, beside = own.median_us, beside.median_us
        return f", {own / beside:.2f} of the float32 file's"


def _words(latency: Latency) -> str:
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    return f"{latency.median_us:.0f} µs median, {latency.p95_us:.0f} µs p95, {threads}"


def _trial(trial: Trial) -> str:
    figures = "" if trial.bytes is None else f" {trial.bytes:,} bytes, mean error {trial.mean_error:.2e}:"
    return f"{trial.quantize or 'float32'}:{figures} {trial.refused or 'taken'}"
