"""What docs/study.md and docs/study_choices.md say about Part D, choosing, in the order of the pages."""

from __future__ import annotations

CHOICE = """## Part D: choosing between the target, the mix, the source and a filter

No method is best everywhere: a filter helps where the target can judge the source, and throws away what a bad target
needs; half of every mixed batch is the target, however bad it is. So several policies are trained, and one is chosen
without a simulator: critics are fitted to the target's and the source's transitions for each policy, and the policy
with the highest value in first states of held-out target episodes, less a standard deviation over critics, is taken.
Where the target is drawn row by row, first states are the source's.

What is chosen from was changed three times. Each form was written down, and tagged, before the values of its test were
known.

- "filter or mix": developed on Hopper, tested once on three tasks of Walker2d and of Ant (tags `study-d-frozen`,
  `study-d-frozen-ant`).
- "filter, mix or source": the source alone is worth more than mixing where the target is bad and the source near. It is
  left out where the source's episodes earn less than the target's, for critics would take it there. Tested on the same
  tasks and five of HalfCheetah, before any policy on the source alone was trained (tag `study-d-source`).
- "filter, mix or source; else target or filter": where the source's episodes earn less, mixing is left out too, and the
  target alone comes in. Found on Hopper's map, tested on Walker2d's (tag `study-d-gate`).
- "any of the four; else target or filter": the target alone is a candidate everywhere. Found on Walker2d's map,
  tested on HalfCheetah's corners (tag `study-d-four`) and then on Ant's, on both of which it chose as the form before
  it did. This is what `v2a choose` does. Tested in the published setting too, on Hopper (tag `study-d-published`) and
  then on four of Walker2d's six cells (tag `study-d-otdf`).

What is chosen of a sweep's policies:

    python -m benchmarks.study.selection runs/NAME --output DIR --name NAME

Means of what is chosen, and the most that it loses to the better of target alone and mixing, which is known here for
every task and seed. Then the mean difference of the last way to that better baseline, with a 95 % t interval over
tasks, and the tasks in which its mean is behind both baselines' better mean by more than 3 points:
"""

AGAINST_FILTERS = """
**The gain is that of the controls**, whose source is the target's own robot with another behaviour: 18.8 points in 13
tasks, and 0.7 [-2.1, +3.5] in the 54 with other dynamics, where 6 are behind. It is the gain of the source alone,
which is worth more than both baselines where the target is bad; in 48 of the 67 tasks the choice is within 3 points
of the better baseline. No group of tasks shows a gain by itself, and without its largest task three of the six that
gain would lose.

The choice beside every filter that was run on the same tasks and seeds: interquartile means over
tasks, and the probability that a seed of the choice beats one of the filter. The goal was to be ahead of every
published form with a probability of 0.75. It is ahead of `v2a` with 0.90 on Hopper's map, 0.75 on Walker2d's, 0.75 on
HalfCheetah's, 0.88 on Ant's, and 0.83 in Hopper's part of the published suite; there of IGDF and V2A-OT with 0.83, of
DVDF with 0.67, and of OTDF with 0.17, which has 48 where the choice has 22. In Walker2d's it is level with OTDF.
"""

CHOICE_SHORTFALL = """What was chosen in each task, and what other ways to choose have, is on [a page of its
own](study_choices.md).

What falls short: **in Hopper's part of the published suite it is wrong in four cells of six**, by 13 to 49 points; in
Walker2d's it takes the target alone in all four that were run, and loses 2.5 at most. Sources of Hopper's far
robots earn less, so the target alone and the filter are to be chosen from; there are three times as many
transitions of the source as of the target, which is drawn row by row, so that first states are the source's too, and
critics like the filter better in three cells in which the target alone is (20.7 instead of 46.1, 4.4 instead of 53.1,
82.8 instead of 95.6), and in the fourth the other way round (36.8 instead of 57.2; mixing 49.7). The TD error, which
chooses badly on the maps, would have lost 1.7 points there on average. No number that we know chooses well in both.

In single tasks the choice still loses to the better baseline. Where the source earned less, critics take Hopper's
target alone in five cells of eight in which another candidate or mixing is better by 5 to 32 points: 53.4 instead of
the filter's 85.5, 38.6 instead of mixing's 56.8, 35.3 instead of the filter's 54.8, 25.9 instead of its 40.2, and 37.6
instead of mixing's 43.4. Where it earned more, the mix is taken beside Ant's far robots where the target alone is
better (35.0 instead of 39.6), and the source beside near robots on Hopper (14.7 instead of 29.2), on HalfCheetah (21.9
instead of mixing's 35.6) and on Walker2d (16.6 instead of mixing's 23.2). On HalfCheetah's corners nothing beats mixing
but the source alone by a little: there the choice is 0.6 behind on average, never by more than 2.8, and a source that
earned less would have been worth mixing in two cells of eight, by 0.6 and 1.7.
"""

EARNED_LESS = """### Where the source earned no more

OTDF leads in Hopper's part of the published suite, whose sources earned less than the target did. Is it the filter to
take there? And does it gain by the source, or by its support term, - 0.1 log pi(a | s) under the target's behaviour?
`iql_target, supported` is the target alone with that term; it sees nothing of the source. Both were found on Hopper's
map and written down before they were run elsewhere (tags `study-d-otdf`, `study-d-supported`; the second before its run
in the published suite too). Of every method the mean, the most that it loses to the better baseline, and in how many
tasks it loses more than 3 points:

    python -m benchmarks.study.run tune_configs/study/otdf_walker2d.yaml data_root=DIR
    python -m benchmarks.study.run tune_configs/study/supported_walker2d.yaml data_root=DIR
"""

EARNED_LESS_SAYS = """On average OTDF has what the term alone has: on Hopper's map 63.4 points and 63.5, instead of the
target's 53.3; in the published suite 50.1 and 52.2, instead of 43.7. In the twelve tasks of the other robots, on which
this was not found, they have 43.7 and 43.5, and the target alone 44.2. **So no gain by the source is shown, and it is
not shown that there is none**: cell by cell the two are up to 41 points apart, in either direction, with one seed each.

Both cells with a thousand rows of an expert beside far robots' experts have OTDF ahead (88.3 and 99.2, with the term
alone 49.8 and 65.6, with neither 53.4 and 64.9), and so has one of the published suite (49.9, 25.6 and 18.9), without
which OTDF is 1.4 ahead of the target alone there. On Hopper the filter of our default is ahead of both in three more
(60.0 instead of 36.4, 54.8 instead of 35.3, 40.2 instead of 36.7). OTDF loses most beside ten episodes of an expert
(49.0 and 85.3 instead of 100.8 and 101.4; the term 11 and 3), and in "medium-expert, raw" (26.9 instead of 53.1).
Fitted critics prefer the target alone to OTDF in 18 of 20 tasks, whichever is better. So `v2a choose` is as it was.
"""

REPLAYED = """### Where one source is near

Knowing the dynamics would pay where one source of several is near (Part A). `v2a choose --replay` first replays
twenty of the target's recorded actions in the simulator of each source, and leaves out what is more than three times
as far as the nearest. In these cells that leaves the near one alone, and of Ant's pools nothing, whose sources are
1.5 to 2.2 times as far as the nearest. The first two cells of Walker2d are those in which it was found that the near
source is worth more alone; the others had not been run when the rule was written down (tag `study-d-replayed`). There
it is ahead of the choice from the whole source by 1.4 to 7.4 points, one seed each, three of the four by less than 3,
and of the better baseline of the whole source in all four. On HalfCheetah the choice from the whole source has most
of it. Beside the baselines of the near source alone, which the replay also gives, the choice is 26 ahead once, level
once and 2.8 behind twice.

    python -m benchmarks.study.run tune_configs/study/choice_replayed_walker2d.yaml data_root=DIR
    python -m benchmarks.study.selection runs/choice_replayed_walker2d/* --output DIR --name choice_replayed_walker2d
"""

PARTS = """### Which part of the default helps

The default `v2a_supported` is a filter and a support term in the actor's loss, - 0.1 log pi(a | s) under the target's
behaviour. On the cells of Part A's map: the source alone, the term without any source, the term on the unfiltered mix,
the filter without the term, and the term fitted to the behaviour of target and source in equal parts.

    python -m benchmarks.study.run tune_configs/study/parts_hopper.yaml data_root=DIR

What three cells show, one seed: the term does what the default does, for better and for worse. With 1,000 medium rows
it is worth more than 40 points, on the filtered mix and on the whole one. With ten episodes of an expert it costs 60
beside the source (98.1 without it, 37.4 with it) and 11 without a source. What it holds to a random behaviour cannot
rise. Fitted to the behaviour of both it does none of this.
"""

LEARNERS = """### Other base learners

All else of the study is trained with IQL. Is it IQL that the filter does not help, and is another learner the better
baseline? The target alone, plain mixing and V2A's filter under TD3+BC, ReBRAC and AWAC, on cells of Part A's map. Means
over cells; the better baseline is that of the same learner.

    python -m benchmarks.study.run tune_configs/study/learners_hopper.yaml data_root=DIR

Four cells of twenty, one seed, one of them a control: under no learner is the filter shown to reach the better
baseline of that learner, and under none is it shown not to. It is nearest under AWAC, where it costs least in the
control (26.9 beside mixing's 32.5; under IQL 7.9 and 45.8). The best of all twelve is a baseline in every cell:
mixing in three, and TD3+BC on the target alone in the one with a usable target. IQL's policies, and the data that
they have, are from another kind of processor, on which the same commands give numbers that differ by rounding at
first.
"""

CHOICES = """# What was chosen, task by task

Part D of [the study](study.md), which says how the choice is made; generated with it. Ways to choose are by the value
that fitted critics give, less a standard deviation (`fitted_q_lower`), or by the TD error. "most lost to it" is the
most that a way loses, in a task and seed, to the better of the target alone and plain mixing.
"""
