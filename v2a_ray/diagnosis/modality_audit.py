"""Modality audit: does z of an episode identify the episode's dynamics?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.str_]
NUM_FOLDS = 5


@dataclass(frozen=True)
class ModalityAudit:
    """The information in z; every number is over episodes, each of which has one z.

    Attributes:
        probe_domain: balanced accuracy of a linear probe for the domain, on held-out episodes.
        chance_domain: accuracy of guessing, one over the number of domains.
        probe_behavior, chance_behavior: the same for the behaviour, which z should not represent.
        silhouette: of the true domains in z, from -1 to 1; above 0.5 is clear separation.
        adjusted_rand, mutual_information: agreement of k-means, with as many clusters as domains, with the domains; 1
            is equal, 0 is chance. Mutual information is normalised.
        separate_fits: whether every source has its own encoder. A probe can then recognise the encoder even if dynamics
            are equal, so its accuracy is not evidence.
    """

    num_episodes: int
    num_domains: int
    probe_domain: float | None
    chance_domain: float
    probe_behavior: float | None
    chance_behavior: float
    silhouette: float | None
    adjusted_rand: float | None
    mutual_information: float | None
    separate_fits: bool = False

    @property
    def grade(self) -> str:
        """`good`: the probe's accuracy is at least 0.9. `bad`: less than half way from chance to 0.9."""
        if self.probe_domain is None or self.separate_fits:
            return "unknown"
        if self.probe_domain >= 0.9:
            return "good"
        return "bad" if self.probe_domain < (self.chance_domain + 0.9) / 2 else "fair"


def audit_modality(
    latent_EZ: Float, domain: Labels, behavior: Labels, seed: int = 0, *, separate_fits: bool = False
) -> ModalityAudit:
    """Compare probes and clusters of z (E, Z) with the labels (E,) of its episodes."""
    domains, behaviors = len(set(domain.tolist())), len(set(behavior.tolist()))
    silhouette = rand = information = None
    if 1 < domains < len(latent_EZ):
        clusters = KMeans(domains, n_init=10, random_state=seed).fit_predict(latent_EZ)
        silhouette = float(silhouette_score(latent_EZ, domain))
        rand = float(adjusted_rand_score(domain, clusters))
        information = float(normalized_mutual_info_score(domain, clusters))
    return ModalityAudit(
        num_episodes=len(latent_EZ),
        num_domains=domains,
        probe_domain=probe_accuracy(latent_EZ, domain, seed),
        chance_domain=1 / domains,
        probe_behavior=probe_accuracy(latent_EZ, behavior, seed),
        chance_behavior=1 / behaviors,
        silhouette=silhouette,
        adjusted_rand=rand,
        mutual_information=information,
        separate_fits=separate_fits,
    )


def probe_accuracy(latent_EZ: Float, labels: Labels, seed: int = 0) -> float | None:
    """Balanced accuracy of logistic regression in stratified cross-validation; None if a label has a single episode."""
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        return None
    folds = StratifiedKFold(min(NUM_FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    return float(cross_val_score(probe, latent_EZ, labels, cv=folds, scoring="balanced_accuracy").mean())


def principal_plane(latent_EZ: Float) -> Float:
    """(E, 2): z projected on its two directions of largest variance; the second is zero if z has one dimension."""
    centred = latent_EZ - latent_EZ.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    plane = (left * scale)[:, :2]
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
