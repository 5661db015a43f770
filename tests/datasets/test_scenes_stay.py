"""What a seed draws: networks, the demonstration and measured shifts are of these very scenes.

The numbers are those of the scenes as they were made, not derived. Whoever changes a scene on
purpose writes the new ones here (the message of the failing test has them) and names the change in
CHANGELOG.md, since earlier results do not compare with later ones then.
"""

import numpy as np
import pytest

from geonorm.datasets.synthetic import garden_objects as garden
from geonorm.datasets.synthetic import street_objects as things
from geonorm.datasets.synthetic.action_drawing import MOTIONS, draw_action
from geonorm.datasets.synthetic.lidar import SENSORS
from geonorm.datasets.synthetic.meshes import Mesh
from geonorm.datasets.synthetic.streets import street
from geonorm.datasets.synthetic.suburbs import suburb

MAKERS = {
    "building": lambda rng: things.building(9.0, 6.0, rng),
    "fence": lambda rng: things.fence(7.0, rng),
    "hedge": lambda rng: things.hedge(3.0, rng),
    "bush": things.bush, "tree": things.tree, "pole": things.pole, "person": things.person,
    "car": things.car, "truck": things.truck, "fan_tree": garden.fan_tree, "board": garden.board,
    "bed": garden.bed, "rail": garden.rail, "garage": garden.garage,
}  # fmt: skip

# Of twelve seeds: triangles, then sums by `weighed` of x, y, z, albedo and label.
OBJECTS = {
    "building": (1200, 2512.225, 1218.68, 8778.224, 1957.392, 10599),
    "fence": (4920, 279.712, -132.423, 8180.949, 3322.513, 58564),
    "hedge": (4868, -257.932, 107.333, 40359.686, 5892.545, 71980),
    "bush": (1825, -208.35, -375.436, 9521.444, 2237.713, 26380),
    "tree": (6185, -6717.367, 495.804, 204117.701, 7921.817, 93366),
    "pole": (348, 261.18, 17.235, 1574.487, 482.967, 5187),
    "person": (2112, 69.126, -30.314, 4961.607, 3339.518, 60000),
    "car": (3168, -183.185, -427.152, 1983.931, 929.5, 76704),
    "truck": (4020, 1939.576, 493.78, 4824.2, 1346.422, 106731),
    "fan_tree": (5956, -324.739, -1261.52, 123966.404, 5443.064, 95190),
    "board": (432, 261.037, 23.535, 690.124, 749.603, 7728),
    "bed": (13478, -2468.776, -993.726, 58990.921, 13319.337, 201295),
    "rail": (900, 876.376, -5.357, 360.275, 637.889, 10684),
    "garage": (288, 349.231, -363.314, 218.154, 273.211, 2088),
}
# Of one seed each: the same of a whole street, and the place of the sensor.
STREETS = {
    0: (31646, 914374.914, -103152.571, 324060.669, 32237.134, 431824, 0, 2.402, 1.769),
    1: (25322, 314869.256, -250080.312, 243500.28, 22589.959, 340157, 0, -3.202, 2.635),
    2: (25395, 618178.191, 147778.501, 234203.114, 22634.159, 338261, 0, -1.794, 1.91),
    3: (30282, 558999.44, -41118.544, 276786.384, 28104.324, 428089, 0, -0.431, 2.568),
    # Its last lot begins in the last metre.
    13: (28663, 68533.926, -456404.98, 292841.579, 28017.516, 403513, 0, 4.415, 2.704),
}
# Of one seed each: the same of a suburb, and the place of the sensor and where it looks.
SUBURBS = {
    0: (193241, 205850.412, -2841284.831, 378890.836, 280292.481, 1585521,
        6.244, -1.428, 1.201, 0.06),
    1: (197863, -480416.83, 3262282.328, 1893343.498, 212346.505, 1703336,
        0.152, 0.049, 1.983, 0.043),
    2: (247071, -15478744.645, -13227390.359, 2836444.827, 367153.572, 2429848,
        -1.838, 1.743, 0.489, -0.011),
    3: (241864, 1701084.231, -6999588.225, 2101403.84, 277777.058, 2273086,
        5.938, -0.81, 1.899, -0.209),
    4: (217663, -16796758.004, 66898.244, 1553032.127, 269452.206, 1958210,
        5.124, -1.301, 1.608, -0.091),
    5: (250272, -11358417.745, -1748565.719, 2098451.047, 294319.393, 2452410,
        -6.627, 2.01, 1.796, -0.122),
    6: (186943, -3470033.024, -1187605.443, 1977532.606, 219813.433, 1493748,
        -7.915, 0.769, 2.472, 0.099),
    7: (205001, 311494.501, -7756667.938, 1737939.393, 243802.444, 1778882,
        -2.831, -1.654, 1.906, 0.022),
    # The car is turning.
    11: (198501, -7752354.584, 2867767.744, 1157937.766, 249146.35, 1684359,
         -0.645, 0.627, 2.203, -2.861),
}  # fmt: skip
# Of every motion with a seed of its own: the same sums of the film and of the shape's share.
FILMS = {
    "move left": (2191059, 4292920, 10211733, 4124.871),
    "move right": (5092599, 7776430, 3596579, 10283.396),
    "move up": (1457176, 5273891, 8037559, 3745.544),
    "move down": (5643923, 4668202, 7133681, 9491.728),
    "turn clockwise": (2490804, 2613437, 10019441, 4723.935),
    "turn anticlockwise": (3201230, 5619391, 5965157, 8289.699),
    "zoom in": (9654095, 6866042, 6650123, 7081.892),
    "zoom out": (7438965, 7242330, 7487917, 6283.51),
    "bounce on the floor": (6655775, 7102059, 1622778, 11598.639),
    "bounce on the ceiling": (6129864, 5761530, 8575556, 17587.136),
    "jerk right": (3640871, 7419209, 7531139, 3579.04),
    "jerk left": (7923577, 4628869, 7901012, 4434.546),
}


def weighed(values: np.ndarray) -> np.ndarray:
    """Return the sums of columns, rows weighed so that none can stand for another."""
    weights = (np.arange(len(values)) * 31 % 17 + 1.0) * np.where(np.arange(len(values)) % 3, 1, -1)
    return weights @ np.asarray(values, np.float64)


def of_mesh(mesh: Mesh) -> np.ndarray:
    return np.hstack([len(mesh.triangles), weighed(mesh.vertices), weighed(mesh.albedo),
                      weighed(mesh.labels)])  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_objects(name: str) -> None:
    found = sum(of_mesh(MAKERS[name](np.random.default_rng(seed))) for seed in range(12))
    assert found.round(3).tolist() == pytest.approx(OBJECTS[name], abs=0.05)


@pytest.mark.parametrize("seed", STREETS)
def test_streets(seed: int) -> None:
    sensor = SENSORS[("roof32", "mast64")[seed % 2]]
    mesh, place = street(sensor, np.random.default_rng(seed))
    found = np.hstack([of_mesh(mesh), place])
    # 250,000 vertices in float32: a sine's last digit may differ from one machine to the next.
    assert found.round(3).tolist() == pytest.approx(STREETS[seed], abs=0.5)


@pytest.mark.parametrize("seed", SUBURBS)
def test_suburbs(seed: int) -> None:
    mesh, place, yaw = suburb(1.73, np.random.default_rng(seed))
    assert of_mesh(mesh).round(3).tolist() == pytest.approx(SUBURBS[seed][:6], abs=0.5)
    assert [*place, yaw] == pytest.approx(SUBURBS[seed][6:], abs=1e-3)


@pytest.mark.parametrize("motion", MOTIONS)
def test_films(motion: str) -> None:
    number = list(MOTIONS).index(motion)
    film, cover = draw_action(motion, np.random.default_rng(number), frames=8, size=48)
    red, green, blue = weighed(film.reshape(-1, 3))
    found = [red, green, blue, weighed(cover.ravel()).round(3)]
    assert found[:3] == pytest.approx(FILMS[motion][:3], abs=300)  # a few roundings to a byte
    assert found[3] == pytest.approx(FILMS[motion][3], abs=0.5), found
