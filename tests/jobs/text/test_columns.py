from jobs.text.columns import columns, number


def test_a_figure_that_is_not_there_is_a_dash():
    assert (number(1234.5, ",.2f"), number(0.0, ".1f"), number(None, ".1f")) == ("1,234.50", "0.0", "–")


def test_names_stand_left_and_figures_right():
    assert columns([("name", "kind", "count"), ("a", "long kind", "1"), ("long name", "", "1,000")], num_names=2) == (
        "name       kind       count\na          long kind      1\nlong name             1,000"
    )
