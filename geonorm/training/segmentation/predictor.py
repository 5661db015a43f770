"""A trained network as a function from a scan to the classes of its points."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from geonorm.attribution import Attribution
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_io import read_scan
from geonorm.datasets.views import Viewing, collate_views
from geonorm.datasets.voxelize import ScanBatch, collate_scans
from geonorm.files import written_whole
from geonorm.training.attributions import Explanation, number_of, write_statistics
from geonorm.training.sampler import without_position
from geonorm.training.segmentation.attribution import attribution
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import check_device, has_domains
from geonorm.training.segmentation.predict import (
    Output,
    draw_predicted,
    numbers_in_files,
    write_attribution,
    write_labels,
    write_scan,
)
from geonorm.training.segmentation.stream import Arrivals, Journal, Latency, State, Stream
from geonorm.training.sharing import located, read_network, restored

DRAWN_AT_A_TIME = 4  # scans; starting Open3D for each would take longer than drawing it


class ScanPredictor:
    """A checkpoint of `geonorm train-seg` with the voxels that it was trained on.

    Args:
        checkpoint: a file that `geonorm train-seg` wrote, a folder that `geonorm share` wrote, or
            `hf://owner/name`.
        device: where to predict.
        domain: number of the sensor or data set that the scans come from, for a network with
            domain norms.
        viewing: in which pieces and how often a scan is seen.

    Attributes:
        classes: names of the classes.
        colors: RGB of each class, (K, 3) uint8.

    Raises:
        ValueError: the file is missing or damaged, or says nothing of its voxels; or the device is
            a GPU for which MinkowskiEngine is not built; or the network has domain norms and no
            domain is given.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        domain: int | None = None,
        viewing: Viewing = Viewing(),  # noqa: B008  (frozen)
    ) -> None:
        told = read_network(located(checkpoint))
        voxels = told.get("ScanData")
        if voxels is None:
            raise ValueError(
                f"{checkpoint} does not say how its scans were made into voxels; expected a "
                "checkpoint of geonorm train-seg"
            )
        self.voxels = without_position(voxels)
        module = restored(SegmentationModule, told, device)
        if module.name != "PointMLP":
            check_device(torch.device(device))
        self.module, self.domain, self.viewing = module, domain, viewing
        if domain is None and module.network is not None and has_domains(module.network):
            raise ValueError(
                f"{checkpoint} was trained on {module.hparams['num_domains']} domains: say which "
                "one the scans are of (--domain 0 for the first)"
            )
        self.classes: list[str] = module.classes
        self.colors = np.array(module.colors, dtype=np.uint8)

    def __call__(self, scan: Scan) -> np.ndarray:
        """Return the class of each point, a number into `classes`.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.

        Shape:
            - result: (N,), int64
        """
        return self._classes(self._batch(scan))

    def _batch(self, scan: Scan) -> ScanBatch:
        """Return the voxels of a scan."""
        if self.domain is not None:
            scan = replace(scan, domain=self.domain)
        if self.viewing.several:
            return collate_views([scan], self.viewing, **self.voxels)
        return collate_scans([scan], **self.voxels)

    def _classes(self, batch: ScanBatch) -> np.ndarray:
        """Return the class of each point of a batch."""
        batch = self.module.transfer_batch_to_device(batch, self.module.device, 0)
        with torch.inference_mode():
            classes: np.ndarray = self.module(batch).cpu().numpy()
        return classes

    def write(self, scan: Scan, path: str | Path) -> np.ndarray:
        """Predict, write a `.label` or `.npy` file for every point of the scan's file, and return.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.
            path: what to write; it appears complete or not at all.

        Raises:
            ValueError: another suffix.
        """
        if Path(path).suffix not in (".label", ".npy"):
            raise ValueError(f"expected a path that ends in .label or .npy; got {path}")
        predicted = self(scan)
        write_labels(Path(path), predicted, scan.kept, self.classes)
        return predicted

    def attribution(self, scan: Scan, target: str | None = None) -> Attribution:
        """Return what each feature of each point added to the scores, by integrated gradients.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.
            target: name of the class whose score it is, at the points predicted as that; by default
                at each point the class that is predicted.

        Shape:
            - values: (N, C), with the features that the network was trained on

        Raises:
            ValueError: an unknown class, one that no point is predicted as, or a predictor that
                sees a scan several times.
            ModuleNotFoundError: captum is not installed: `pip install 'geonorm[train]'`.
        """
        self._check_explained(Explanation("integrated_gradients", target))
        return attribution(self.module, self._batch(scan), number_of(target, self.classes))

    def _check_explained(self, explanation: Explanation) -> None:
        """Refuse an explanation that there is not.

        Raises:
            ValueError: an unknown class, or a predictor that sees a scan several times.
        """
        number_of(explanation.target, self.classes)
        if self.viewing.several and (explanation.attribution or explanation.statistics):
            raise ValueError(
                "attributions and statistics are of one look at a scan: leave out --votes and "
                "--chunk"
            )

    def predict_files(
        self,
        files: Sequence[Path],
        folder: Path,
        output: Output = Output(),  # noqa: B008  (frozen)
        intensity_max: float = 1.0,
        stream: Stream = Stream(),  # noqa: B008  (frozen)
        explanation: Explanation = Explanation(),  # noqa: B008  (frozen)
    ) -> list[Path]:
        """Predict scans and write the results, and `classes.json`, which explains the numbers.

        No two files share a name, and each appears complete or not at all. A line is printed for
        each scan, and at the end how long its parts took.

        Args:
            files: scans that `geonorm.datasets.read_scan` reads, and folders of such.
            folder: where the results go, made if need be.
            output: which results to write.
            intensity_max: intensity in the files that counts as 1.
            stream: whether to leave out what is done already and to wait for further scans.
            explanation: what to write of how the network came to its predictions.

        Returns:
            The files of a recording that could not be read; without one, none.

        Raises:
            ValueError: a file is missing or damaged; where that shows at once, before any result.
                Or the folder has the journal of other settings.
        """
        self._check_explained(explanation)
        suffix = f".{output.format}"
        settings = None
        if stream.keeps_journal:
            settings = {**self._settings(), "intensity_max": intensity_max, **asdict(output),
                        **asdict(explanation)}  # fmt: skip
        arrivals = Arrivals(files, stream, lambda file, state: journal.has(file, state, suffix))
        journal = Journal(folder, settings)
        run = _Run(self, folder, output, journal, arrivals, explanation)
        failed: dict[Path, None] = {}
        for file in arrivals:
            if file is None:
                run.draw()
                continue
            try:
                run.predict(file, intensity_max)
                failed.pop(file, None)
            except ValueError as error:
                if stream.watch is None:
                    run.draw()
                    raise
                print(f"left out, until it changes: {error}", flush=True)
                failed[file] = None
        run.draw()
        run.report(stream)
        return [*failed]

    def _settings(self) -> dict[str, Any]:
        """Return what predictions follow from, to tell those of one network from another's."""
        digest = hashlib.sha256()
        for key, tensor in self.module.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return {"weights": digest.hexdigest(), "voxels": self.voxels, "domain": self.domain,
                **asdict(self.viewing)}  # fmt: skip


class _Run:
    """Prediction of files into a folder, one after another."""

    def __init__(
        self, predictor: ScanPredictor, folder: Path, output: Output, journal: Journal,
        arrivals: Arrivals, explanation: Explanation,
    ) -> None:
        self.explanation = explanation
        self.predictor, self.folder, self.output = predictor, folder, output
        self.journal, self.arrivals = journal, arrivals
        self.latency, self.start = Latency(), time.monotonic()
        self.undrawn: list[_Result] = []

    def predict(self, file: Path, intensity_max: float) -> None:
        """Predict a file, write its results, and print where they are."""
        predictor = self.predictor
        clock = _Clock()
        scan = read_scan(file, intensity_max)
        clock.stop("read")
        batch = predictor._batch(scan)
        clock.stop("voxelize")
        with self.explanation.recorded(predictor.module) as removed:
            predicted = predictor._classes(batch)
        clock.stop("network")
        stem = self.journal.stem(file)
        self.folder.mkdir(parents=True, exist_ok=True)
        said = write_scan(scan, predicted, predictor.classes, predictor.colors,
                          self.folder / stem, self.output)  # fmt: skip
        if removed:
            write_statistics(self.folder / stem, removed)
        clock.stop("write")
        if self.explanation.attribution:
            said += self._attribute(scan, batch, stem)
            clock.stop("attribution")
        if not self.latency.seconds:
            with written_whole(self.folder / "classes.json") as aside:
                table = numbers_in_files(predictor.classes, self.output)
                aside.write_text(json.dumps(table, indent=2) + "\n")
        self.latency.add(clock.seconds)
        print(f"{self._progress()}{said}", flush=True)
        state = self.arrivals.seen[file]
        self.undrawn.append(_Result(file, state, scan, predicted, stem, clock.seconds))
        if not self.output.pictures or len(self.undrawn) == DRAWN_AT_A_TIME:
            self.draw()

    def _attribute(self, scan: Scan, batch: ScanBatch, stem: str) -> str:
        """Write the attribution of a scan, and say how far it sums to the scores, or why not."""
        target = number_of(self.explanation.target, self.predictor.classes)
        try:
            found = attribution(self.predictor.module, batch, target)
        except ValueError as error:
            return f"; no attribution: {error}"
        file = write_attribution(self.folder / stem, found.values.cpu().numpy(), scan.kept)
        return f"; attribution in {file}, complete but for {found.gap:.1%} at {found.steps} steps"

    def draw(self) -> None:
        """Draw what is not drawn yet, if pictures are wanted, and write down that it is done."""
        if self.output.pictures and self.undrawn:
            draw_predicted(
                [(result.scan, result.predicted) for result in self.undrawn],
                self.predictor.classes, self.predictor.colors,
                [self.folder / result.stem for result in self.undrawn],
            )  # fmt: skip
        for result in self.undrawn:
            self.journal.add(result.file, result.state, result.stem, result.seconds)
        self.undrawn = []

    def _progress(self) -> str:
        """Return how many scans are done, how many wait, and how long these will take."""
        done, waiting = len(self.latency.seconds), self.arrivals.waiting
        if done + waiting == 1 and self.arrivals.stream.watch is None:
            return ""
        left = (time.monotonic() - self.start) / done * waiting
        return f"[{done}/{done + waiting}, {timedelta(seconds=round(left))} left] "

    def report(self, stream: Stream) -> None:
        """Print what was left out and how long the parts took."""
        if self.arrivals.left_out:
            print(f"{self.arrivals.left_out} scans were done already")
        if stream.stop.is_set():
            print("stopped; the same command goes on from here")
        if len(self.latency.seconds) > 1:
            print(self.latency)


class _Clock:
    """The seconds of each part of a scan's way."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, part: str) -> None:
        """Count the time since the last part as this one's."""
        now = time.perf_counter()
        self.seconds[part], self._last = now - self._last, now


class _Result(NamedTuple):
    """Prediction of a file that is not written down as done."""

    file: Path
    state: State
    scan: Scan
    predicted: np.ndarray
    stem: str
    seconds: dict[str, float]
