"""Probes against scikit-learn on the same features."""
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmincubation.errors import ConfigError
from mmincubation.probes import fit
from mmincubation.probes.fit import held_out, knn, linear_probe


def features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clusters of 7 classes in 24 dimensions of different scales, so that no probe is right everywhere."""
    centres = np.random.default_rng(0).normal(size=(7, 24))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, count)
    noise = rng.normal(scale=2., size=(count, 24))
    return ((centres[labels] + noise) * np.linspace(.1, 5, 24)).astype(np.float32), labels


@pytest.mark.parametrize('values', [fit.VALUES, 10_000])  # in one part and in many
def test_knn_is_that_of_scikit_learn(monkeypatch, values):
    monkeypatch.setattr(fit, 'VALUES', values)
    (train, labels), (val, truth) = features(1500, 1), features(2000, 2)
    theirs = KNeighborsClassifier(20, metric='cosine', algorithm='brute', weights=lambda far: np.exp((1 - far) / .07))
    expected = theirs.fit(train, labels).predict(val)
    found = knn(*map(torch.from_numpy, (train, labels, val))).numpy()
    ours, theirs = (100 * (predicted == truth).mean() for predicted in (found, expected))
    assert 30 < theirs < 95 and abs(ours - theirs) <= .1 and (found != expected).mean() < .002


def test_the_linear_probe_is_that_of_scikit_learn():
    (train, labels), (val, truth) = features(600, 1), features(2000, 2)
    split = PredefinedSplit(np.where(held_out(labels, 3), 0, -1))
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
                          {'logisticregression__C': fit.INVERSE_PENALTIES}, cv=split).fit(train, labels)
    probe = linear_probe(train, labels, seed=3)
    assert probe.c == search.best_params_['logisticregression__C'] and probe.warning == ''
    assert probe.held_out_top1 == pytest.approx(100 * search.best_score_)
    ours, theirs = (100 * (classify(val) == truth).mean() for classify in (probe, search.predict))
    assert 30 < theirs < 95 and abs(ours - theirs) <= .1


def test_the_same_seed_holds_out_the_same_tenth_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [40, 10, 2, 1])
    first, again, other = (held_out(labels, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert [int(first[labels == label].sum()) for label in range(4)] == [4, 1, 1, 0]


def test_the_end_of_the_grid_and_no_convergence_are_said(monkeypatch):
    train, labels = features(200, 1)
    monkeypatch.setattr(fit, 'STEPS', 1)
    warning = linear_probe(train, labels, 0, grid=(1e-9, 1.)).warning
    assert 'has not converged in 1 steps' in warning and 'the end of the grid' in warning


@pytest.mark.parametrize('run, said', [
    (lambda x, y: knn(torch.from_numpy(x[:19]), torch.from_numpy(y[:19]), torch.from_numpy(x)), 'there are 19'),
    (lambda x, y: linear_probe(x, np.zeros_like(y), 0), 'two classes'),
    (lambda x, y: linear_probe(x[:2], np.array([0, 1]), 0), 'two images')])
def test_too_few_images_are_refused(run, said):
    with pytest.raises(ConfigError, match=said):
        run(*features(40, 0))
