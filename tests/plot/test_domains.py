import pandas as pd
import pytest

from spatiagraph.plot import domain_curve


def curve():
    index = pd.Index([2, 3, 4], name="num_domains")
    values = {"stability": [0.5, 0.8, 0.6], "confidence": [0.9, 0.9, 0.8]}
    return pd.DataFrame({**values, "peak": [False, True, False]}, index=index)


def test_the_curve_rings_peaks_and_marks_the_number(tmp_path):
    ax = domain_curve(curve(), chosen=4, save=tmp_path / "curve.png")
    stability, confidence, peaks, mark = ax.lines
    assert stability.get_ydata().tolist() == [0.5, 0.8, 0.6]
    assert confidence.get_ydata().tolist() == [0.9, 0.9, 0.8]
    assert (peaks.get_xdata().tolist(), peaks.get_ydata().tolist()) == ([3], [0.8])
    assert list(mark.get_xdata()) == [4, 4]
    assert (tmp_path / "curve.png").exists()


def test_a_table_that_is_no_curve_is_refused():
    with pytest.raises(ValueError, match="columns stability, confidence, peak"):
        domain_curve(curve().drop(columns="peak"))
    with pytest.raises(ValueError, match="got 0 rows"):
        domain_curve(curve().iloc[:0])
