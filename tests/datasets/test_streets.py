"""Built-in scans: reproducible, endless, complete, and labelled by what the rays met."""

import sys

import numpy as np
import pytest
from torch.utils.data import DataLoader

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic import street_objects as things
from geonorm.datasets.synthetic.lidar import SENSORS
from geonorm.datasets.synthetic.street_objects import StreetClass
from geonorm.datasets.synthetic.streets import SyntheticStreets, _traffic


def forks(test):
    """Allow what a fork provokes: Python >= 3.12 warns of threads, torch of few cores."""
    for warning in ("ignore:.*multi-threaded.*fork:DeprecationWarning",
                    "ignore:This DataLoader will create:UserWarning"):  # fmt: skip
        test = pytest.mark.filterwarnings(warning)(test)
    return test


def keep(scans):
    return scans


def loader(dataset, **options):
    """Workers that must answer within a minute: a fork that hangs fails instead of stalling."""
    return DataLoader(
        dataset, batch_size=None, collate_fn=keep, multiprocessing_context="fork", timeout=60,
        **options,
    )  # fmt: skip


def assert_same(one, other):
    assert one.name == other.name
    for field in ("points", "intensity", "labels"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.fixture(scope="module")
def scans():
    dataset = SyntheticStreets(num_scans=16, seed=5)
    return [dataset[i] for i in range(len(dataset))]


def test_scans_are_well_formed(scans):
    for scan in scans:
        assert isinstance(scan, Scan)
        assert 8_000 < len(scan) < 20_000
        assert np.isfinite(scan.points).all()
        assert scan.intensity.min() >= 0
        assert scan.intensity.max() <= 1
        assert scan.labels.min() >= 0
        assert scan.labels.max() < len(SyntheticStreets.classes)
        assert scan.dropped == 0
    assert len({scan.name for scan in scans}) == len(scans)


def test_every_class_is_seen(scans):
    counts = sum(np.bincount(scan.labels, minlength=len(StreetClass)) for scan in scans)
    shares = dict(zip(SyntheticStreets.classes, counts / counts.sum(), strict=True))
    assert len(shares) >= 8
    assert min(shares.values()) > 0.005, shares
    assert max(shares.values()) < 0.45, shares


def test_nothing_stands_on_the_sensor(scans):
    for scan in scans:
        flat = np.linalg.norm(scan.points[:, :2], axis=1)
        assert np.median(flat) > 3.0


def traffic(half, place, seeds):
    """Return x and y, (N, 2), of the middles of the vehicles of streets."""
    meshes = [mesh for seed in range(seeds)
              for mesh in _traffic(half, place, np.random.default_rng(seed))]  # fmt: skip
    return np.array([(mesh.vertices.min(0) + mesh.vertices.max(0))[:2] / 2 for mesh in meshes])


def test_no_vehicle_is_within_8_m_in_the_lanes_beside_the_sensor():
    x, y = traffic(6.0, 4.4, 60).T  # lanes at -4.7, -1.5, 1.5 and 4.7: the last is the sensor's
    assert 8 <= np.abs(x[y > 4]).min() < 8.5
    for lane in (-4.7, -1.5, 1.5):
        assert np.abs(x[np.abs(y - lane) < 1]).min() < 1
    for place, beside in ((2.05, False), (2.15, True)):  # 2.65 and 2.55 m from the lane at 4.7
        x, y = traffic(6.0, place, 20).T
        assert (np.abs(x[y > 4]).min() >= 8) is np.bool_(beside)


def test_a_narrow_house_has_its_windows_in_the_middle():
    houses = [things.building(1.0, 6.0, np.random.default_rng(seed)) for seed in range(8)]
    across = [house.vertices[8:16, 0] for house in houses]  # of the first box after the walls
    assert max(np.ptp(one) for one in across) > 1.1  # a door, 1.2 m wide: no window is shown
    windows = [one for one in across if np.ptp(one) < 1.1]
    assert len(windows) > 3
    assert {(min(one), max(one)) for one in windows} == {(-0.5, 0.5)}


def test_of_a_hundred_poles_45_are_lamps_40_signs_and_15_bollards():
    rng, found = np.random.default_rng(0), {"lamp": [], "sign": [], "bollard": []}
    for _ in range(700):
        x, y, z = things.pole(rng).vertices.T
        kind = "lamp" if z.max() > 4 else "sign" if z.max() > 2 else "bollard"
        found[kind].append((z.max(), y.max(), x.max()))
    shares = [len(each) / 700 for each in found.values()]
    np.testing.assert_allclose(shares, [0.45, 0.4, 0.15], atol=0.04)
    height, thick, reach = np.transpose(found["lamp"])
    assert 4.5 <= height.min() < 4.6 < 6.9 < height.max() <= 7.0
    assert 0.07 * 1.2 <= thick.min() < 0.09 < 0.15 < thick.max() <= 0.13 * 1.2
    np.testing.assert_array_equal(reach, 1.5)
    height, thick, half = np.transpose(found["sign"])
    assert 2.2 <= height.min() < 2.25 < 3.15 < height.max() <= 3.2
    assert 0.06 <= thick.min() < 0.061 < 0.079 < thick.max() <= 0.08001  # of the plate before it
    assert 0.25 <= half.min() < 0.26 < 0.39 < half.max() <= 0.4
    np.testing.assert_allclose(found["bollard"], [(1.1, 0.1, 0.1)] * len(found["bollard"]))


def test_heights_and_brightness_overlap_between_upright_classes(scans):
    points = np.concatenate([scan.points for scan in scans])
    bright = np.concatenate([scan.intensity for scan in scans])
    labels = np.concatenate([scan.labels for scan in scans])
    upright = [StreetClass[name] for name in ("BUILDING", "FENCE", "VEGETATION", "TRUCK")]
    for values in (points[:, 2], bright):
        low, high = np.transpose([np.quantile(values[labels == k], (0.1, 0.9)) for k in upright])
        assert low.max() < high.min()


def test_class_table_is_consistent():
    assert SyntheticStreets.classes[StreetClass.TRUNK] == "trunk"
    assert SyntheticStreets.colors.shape == (len(SyntheticStreets.classes), 3)
    assert SyntheticStreets.colors.dtype == np.uint8
    assert len(np.unique(SyntheticStreets.colors, axis=0)) == len(SyntheticStreets.classes)
    assert SyntheticStreets.ignore_index == 255


def test_seed_epoch_and_index_alone_decide():
    dataset = SyntheticStreets(num_scans=3, seed=7)
    first = dataset[1]
    dataset.set_epoch(4)
    later = dataset[1]
    dataset.set_epoch(0)
    assert_same(first, dataset[1])
    assert_same(first, SyntheticStreets(num_scans=9, seed=7)[1])
    for other in (later, dataset[2], SyntheticStreets(num_scans=3, seed=8)[1]):
        assert first.name != other.name
        assert len(first) != len(other) or not np.allclose(first.points, other.points)


@forks
def test_workers_yield_what_the_process_itself_does():
    dataset = SyntheticStreets(num_scans=4, seed=2)
    expected = [dataset[i] for i in range(4)]  # Open3D is in use before the fork, on purpose
    for workers in (1, 2):
        for scan, known in zip(loader(dataset, num_workers=workers), expected, strict=True):
            assert_same(scan, known)


@forks
def test_set_epoch_reaches_workers_that_live_on():
    dataset = SyntheticStreets(num_scans=1, seed=2)
    living = loader(dataset, num_workers=1, persistent_workers=True)
    names = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        names += [scan.name for scan in living]
    assert names == ["street-seed2-epoch0-0", "street-seed2-epoch1-0"]


def test_two_sensors_are_two_arguments():
    steps = {}
    for name, sensor in SENSORS.items():
        scan = SyntheticStreets(num_scans=1, seed=3, sensor=name)[0]
        assert_same(scan, SyntheticStreets(num_scans=1, seed=3, sensor=sensor)[0])
        up = scan.points[:, 2] / np.linalg.norm(scan.points, axis=1)
        steps[name] = len(np.unique(np.degrees(np.arcsin(up)).round(2)))
    assert steps == {"roof32": 32, "mast64": 64, "hdl64": 64}


OBJECTS = {
    "fence": (lambda rng: things.fence(8.0, rng), {"FENCE"}, (0.8, 2.5)),
    "hedge": (lambda rng: things.hedge(8.0, rng), {"VEGETATION"}, (0.8, 3.2)),
    "building": (lambda rng: things.building(9.0, 6.0, rng), {"BUILDING"}, (2.4, 13.0)),
    "bush": (things.bush, {"VEGETATION"}, (0.4, 2.6)),
    "tree": (things.tree, {"TRUNK", "VEGETATION"}, (3.0, 9.0)),
    "pole": (things.pole, {"POLE"}, (0.8, 7.1)),
    "person": (things.person, {"PERSON"}, (1.4, 2.1)),
    "car": (things.car, {"CAR"}, (1.3, 2.0)),
    "truck": (things.truck, {"TRUCK"}, (1.9, 3.7)),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_object_has_its_classes_and_size_and_stands_on_the_ground(name):
    make, classes, (low, high) = OBJECTS[name]
    for seed in range(20):
        mesh = make(np.random.default_rng(seed))
        assert {StreetClass(label).name for label in np.unique(mesh.labels)} == classes
        assert low <= mesh.vertices[:, 2].max() <= high
        assert mesh.vertices[:, 2].min() < 0.5
        assert mesh.triangles.max() < len(mesh.vertices)
        assert len(mesh.labels) == len(mesh.albedo) == len(mesh.triangles)
        assert mesh.albedo.min() >= 0
        assert mesh.albedo.max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_scans": 0}, "num_scans must be >= 1; got 0"),
        ({"num_scans": 1, "seed": -1}, "seed must be >= 0; got -1"),
        ({"num_scans": 1, "sensor": "sonar"}, "one of roof32, mast64, hdl64; got 'sonar'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticStreets(**arguments)


def test_bad_epoch_and_index_are_refused():
    dataset = SyntheticStreets(num_scans=2)
    with pytest.raises(ValueError, match="epoch must be >= 0; got -1"):
        dataset.set_epoch(-1)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 2\); got {index}"):
            dataset[index]


def test_streets_without_open3d_are_refused_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d.core", None)  # which makes importing it fail
    with pytest.raises(ImportError, match=r"needs Open3D"):
        SyntheticStreets(1)


def test_scan_refuses_what_it_is_not():
    points, bright = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"points must be \(N, 3\); got \(4, 2\)"):
        Scan(points[:, :2], bright, None, "x")
    with pytest.raises(TypeError, match="points must be float32; got float64"):
        Scan(points.astype(np.float64), bright, None, "x")
    with pytest.raises(ValueError, match=r"intensity must be \(4,\), one per point; got \(3,\)"):
        Scan(points, bright[:3], None, "x")
    with pytest.raises(TypeError, match="labels must be int64; got int32"):
        Scan(points, bright, np.zeros(4, np.int32), "x")


def test_scan_drops_and_counts_points_that_are_not_finite():
    points = np.arange(12.0).reshape(4, 3)
    points[1, 2] = np.nan
    bright = np.array([0.1, 0.2, np.inf, 0.4])
    scan = Scan.from_raw(points, bright, np.arange(4), "x")
    assert scan.dropped == 2
    np.testing.assert_array_equal(scan.labels, [0, 3])
    np.testing.assert_array_equal(scan.points, points[[0, 3]].astype(np.float32))
