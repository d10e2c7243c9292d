"""Names in the picture of metrics stand apart and beside their points."""

from itertools import combinations

import numpy as np

from mpsearch.report.metrics import labels_of

LINE, NAME = 5.0, 22.0


def test_names_of_points_that_stand_alone_are_beside_them() -> None:
    places = [(0.0, 90.0), (50.0, 90.0), (50.0, 20.0), (100.0, 0.0)]
    assert labels_of(places) == [top for _, top in places]


def test_names_never_overlap_wherever_the_points_are() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        count = int(generator.integers(2, 9))
        spread = generator.choice([1.0, 10.0, 100.0])
        places = [
            (float(left), float(top))
            for left, top in generator.uniform(0, spread, size=(count, 2)) % 100
        ]
        labels = labels_of(places)
        for one, two in combinations(range(count), 2):
            if abs(places[one][0] - places[two][0]) < NAME:
                assert abs(labels[one] - labels[two]) >= LINE - 1e-9
        # Away from the nearer edge, so that a name stays in the picture.
        for (_, top), label in zip(places, labels, strict=True):
            assert label <= top if top > 50 else label >= top


def test_equal_points_at_the_bottom_are_told_one_above_the_other() -> None:
    assert labels_of([(30.0, 100.0)] * 3) == [100.0, 95.0, 90.0]
