"""What docs/study.md says at its end: of seeds, limits, failures, findings and cost, in the order of their use."""

from __future__ import annotations

SPREAD = """## What one seed says

The same cell with other seeds, in all sweeps that have several of one cell: the standard deviation within a cell.
Cells whose target is first episodes have the same data with every seed (see the design), so that it is a lower bound.
In the median cell it is small with every method, and in single cells it decides who leads. With a thousand rows of an
expert beside a far one our default has 86 and 34 (and [39](#what-was-trained-twice) with the first seed on another
processor), and the target alone 53 and 71; with 100,000 rows of an expert the
target alone has 38 and 100. Of our default's four leads with one seed, all on Hopper, two are there again: a thousand
rows of medium and a near medium-replay (by 28 and 29), and 10,000 rows of medium and three sources (by 20 and 18). Two
are not: the far expert (by 32 and -36), and the far medium-replay (by 14 and -2). Two runs of one seed differ by 1.4
times as much, and with a probability of 95 % by up to 2.8 times.
"""

CROSSED = """Is it unfair to compare with the better of two noisy baselines? By about a point. In the cells of Parts A
and E with several seeds, the baseline can be chosen by a cell's other seeds, and then the filters are less behind:
"""

LIMITS = """## Limits

- Most cells have one seed, with which differences of 15 points and more are found where there is none
  ([above](#what-one-seed-says)): in {every[v2a].far_behind} of the {every[v2a].behind} cells in which `v2a` is behind
  by more than 3 points, it is behind by more than 15 points. Differences over 20 cells are another matter, though
  cells that share a target are not independent.
- Policies have 5,000 update steps (10,000 in Part C, as V2A has; DVDF and OTDF have a million), and advantages 3,000
  (10,000). Part B shows that A changes its order with training, and Part C that after 100,000 steps the target alone is
  better and mixing worse, in the one cell in which that was tried.
- Sources have 30,000 transitions, and all methods one base learner, IQL. TD3+BC, AWAC and ReBRAC under the same
  filter were tried in four cells of Hopper.
- Behaviours are those of our zoo but in Part E, and in Part C's cell of recorded data. Dynamics are shifts of a
  simulator; no real robot was used.
- The first form of Part D's rule was found on Hopper's map and the last on Walker2d's. HalfCheetah's and Ant's tasks
  are its only tests on robots that it had not seen, 24 together.
- The cells are a fraction of all combinations: effects of single factors can be told apart, most of their products not.
"""

FINDINGS = """## Two findings in published code

Tables of the field depend on both. Read at the named commits of the public repositories.

- **ODRL's BOSA never bootstraps before a terminal.** Its replay buffer returns *not done* as the fifth column of a
  batch (module algo.utils); algo.offline_offline.bosa takes that column for *done* and multiplies the next value by one
  minus it (OffDynamicsRL/off-dynamics-rl, 0dddcc4 and dce52a9). So the TD target of every step but a terminal one is
  its reward alone, and a terminal one bootstraps. Ours multiplies by *not terminated* ([BOSA](methods/bosa.md)).
- **OTDF's training script keeps 0.8 of the source, whatever its configuration says.** `--proportion` has the default
  0.8 and is written over the configuration (train_otdf, dmksjfl/OTDF, 41e2e62); README's command for reproducing and
  its shell script do not set it, and README's example sets 0.8, where the paper keeps a quarter. Ours keeps a quarter;
  `policy.filter.keep_fraction=0.8` is the other.
"""

FAILED = """## What failed

What was tried for this study and is not used, so that nobody has to try it again without knowing.

- **Filters by h as the default.** `v2a` (contrastive h) is behind the better baseline in {every[v2a].behind} of
  {every[v2a].number} cells, `v2a_residual` in {every[v2a_residual].behind}; our default without its support term in
  two of three.
- **Telling the near source by the data**: the mean of three kinds of h, and a model that is told the names of the
  dynamics (Part A). By hand, without a script that was kept: nearest neighbours of (s, a), an ensemble that is fitted
  to the target, and rolling the told model out over twenty steps. With an expert's source and a bad target none is
  right on both robots.
- **Critics to find the near source**, by hand with `v2a select TRIAL --with-source`: on Walker2d they give the mix
  with the near source alone a lower value than the policy that is chosen, in two of the three cells in which it is
  worth up to five times as much.
- **Choosing by the TD error**: it is largest where the target has not been, which is where a bad target has to go.
- **Choosing more carefully**: the mix only where it is worth a quarter more (tag `study-d-margin`), values of all
  recorded states instead of first ones, critics whose batches are half target, and a discount of 0.997.
- **The choice in Hopper's published suite**: fitted critics prefer the filter where the target alone is better, and
  once the other way round (Part D).
- **OTDF, or the target alone with its support term, where the source earned no more**: both are 10 points ahead of the
  target alone on Hopper, where they were found, and neither is on Walker2d, HalfCheetah and Ant (Part D).
- **A larger rule for mixing**: overlap and mismatch of the data add nothing to "the source earned more".
- **The support term fitted to target and source**: it does none of what it does when it is fitted to the target.
- **Three seeds as one batch** on this processor: they take as long as one after the other.
"""

REPEATED = """
## What was trained twice

Sweeps have cells in common, and those that were run on another day were so from an empty store, on a machine of the
same kind: data, columns and policies anew. Four cells of Hopper's map were run again to see, three of them in a fresh
clone with `--again`. Do they have the same returns, to the bit? The first cell of Hopper's map had not: its three seeds
had been trained as one batch, whose policies equal single ones up to rounding. It was trained again, one policy at a
time, and differs by less than a point in seed 0, and by up to 1.8 in the others. Pairs are counted: a policy that three
sweeps have is two.

    python -m benchmarks.study.repeated
"""

COST = """## What it took

Hours of one core, as the artifacts' records say; one or two trainings ran at a time on two cores of an AMD EPYC
(family 25 model 17; later seeds of Part E and some of Hopper's map, and the other learners, on model 1, which is
slower; the newest rows name their processor), at times beside other work, so they are upper bounds. Not counted:
collecting data, the screen of Part B (some 12 minutes a mix) and the critics of Part D (some 20 seconds a policy).
Counted are also policies whose rows are those of a choice alone, or of no sweep.

    python -m benchmarks.study.cost runs/artifacts
"""
