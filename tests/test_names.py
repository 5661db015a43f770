"""geonorm.names: the known names, and the near one where there is one."""

from geonorm.names import choices


def test_the_near_name_is_offered_and_only_where_one_is_near() -> None:
    known = ["none", "batch", "instance"]
    listed = "choose from ['batch', 'instance', 'none']"
    assert choices("instence", known) == f"{listed}. Did you mean 'instance'?"
    assert choices("xyz", known) == listed
    assert choices(32, iter(known)) == listed
