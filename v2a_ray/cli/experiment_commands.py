"""`v2a run`, `v2a sweep`, `v2a methods`, `v2a config`, `v2a cache`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from v2a_ray.cli.console import console, error_console, next_step, resumable

if TYPE_CHECKING:
    from v2a_ray.experiments.estimate import Estimate
    from v2a_ray.experiments.sweep import Sweep

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, e.g. tune_configs/demo.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. method=dvdf seed=1 policy.num_steps=5000; see `v2a config`"),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let Ray's own messages through.")]
NumCpus = Annotated[int | None, typer.Option("--num-cpus", min=1, help="Cores of the local Ray; by default all.")]

Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="HOST:PORT of a Ray cluster to run on; by default RAY_ADDRESS, or a Ray of its own."
    ),
]


def notice(text: str) -> None:
    """Print a notice; the command continues."""
    error_console.print(text, style="yellow")


def say_starting(address: str | None) -> None:
    """Print a line, because importing and starting Ray takes seconds in which nothing else is shown."""
    asked = address or os.environ.get("RAY_ADDRESS") or "local"
    text = "starting Ray" if asked == "local" else f"joining Ray at {asked}"
    console.print(text, style="dim")


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (run, sweep, methods, config, cache):
        app.command()(command)


def run(
    config_file: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir", help="Results: a folder, or s3://BUCKET/PREFIX; by default runs/NAME-METHOD-seedSEED."
        ),
    ] = None,
    num_cpus: NumCpus = None,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Run one experiment: data, modality, advantage, alignment, policy, evaluation.

    Stages whose settings and inputs did not change are reused. After Ctrl-C or a kill the same command goes on where it
    stopped.
    """
    from v2a_ray.experiments.reading import (
        missing_nodes,
        read_experiment,
        require_domains,
        require_packages,
        store_of,
    )
    from v2a_ray.result_folders import address_of, results_folder

    # Report errors of the settings and print the first line before imports that take seconds.
    settings = read_experiment(config_file, overrides or [], notice)
    console.print(Text.assemble((settings.name, "bold"), f" · method {settings.method_title} · seed {settings.seed}"))
    require_domains(settings, config_file)
    require_packages(settings)
    from v2a_ray.data.mixing.mixture import mix_name
    from v2a_ray.engine.plan import make_plan, mix_key

    plan = make_plan(settings)
    store = store_of(settings)
    with results_folder(run_dir or Path("runs") / settings.folder_name) as folder, resumable():
        console.print(mix_name(settings, mix_key(plan)), soft_wrap=True)
        console.print(f"results {address_of(folder) or folder}\nartifacts {store.address}", soft_wrap=True)
        needs_ray = bool(missing_nodes(store, plan))
        if needs_ray:
            say_starting(address)
        from v2a_ray.cli.display import StageDisplay
        from v2a_ray.orchestration.cluster.session import ray_session
        from v2a_ray.orchestration.train.run import run_experiment

        session = ray_session(num_cpus, verbose, address) if needs_ray else nullcontext()
        with session, StageDisplay(console) as display:
            result = run_experiment(settings, plan, folder, display)
    _print_outcome(result["target"], settings.target.domain)
    console.print(f"{address_of(folder) or folder}/result.json", soft_wrap=True)


def _print_outcome(target: Mapping[str, Any], domain: str) -> None:
    """How good the policy is, or what can be said where nobody tried it."""
    if "rank_by" in target:
        from v2a_ray.report.offline_text import offline_lines

        first, *others = offline_lines(target)
        console.print(Text.assemble((f"\n{first}", "bold")), soft_wrap=True)
        console.print("\n".join(others), soft_wrap=True)
        return
    score, returns = (_spread(target, *what) for what in (("normalized_score", 1), ("return", 0)))
    episodes = f"{target['num_episodes']} episodes in {domain}"
    console.print(
        Text.assemble((f"\nnormalised score {score}", "bold"), f" · return {returns} over {episodes}"), soft_wrap=True
    )


def _spread(target: Mapping[str, Any], name: str, digits: int) -> str:
    """Mean and standard deviation over episodes; a single episode has no deviation."""
    mean, std = target[f"{name}_mean"], target[f"{name}_std"]
    if mean is None:
        return "unknown (the domain has no reference returns)"
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def sweep(
    config_file: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML file, e.g. tune_configs/smoke.yaml")
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None, typer.Option("--run-dir", help="Results: a folder, or s3://BUCKET/PREFIX; by default runs/NAME.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimated cost; compute nothing.")] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="DIR", help="Continue the sweep in this folder or address.")
    ] = None,
    num_cpus: NumCpus = None,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Run many experiments with Ray Tune: grids over mixes, methods and seeds, or a search.

    Stages that trials share are computed once, before the trials. The same command goes on where it stopped and runs no
    finished trial again; with `--resume DIR` it needs no CONFIG.
    """
    from v2a_ray.errors import ConfigError
    from v2a_ray.result_folders import address_of, results_folder

    if (config_file is None) == (resume is None):
        raise ConfigError("give a file, or --resume with the folder of a sweep", where="v2a sweep")
    experiment = _sweep_of(config_file, overrides or [], resume)
    for text in experiment.notices:
        notice(text)
    if dry_run:
        _print_estimate(experiment, num_cpus)
        return
    with results_folder(resume or run_dir or Path("runs") / experiment.name) as folder, resumable():
        where = address_of(folder) or folder
        console.print(_about(experiment, experiment.num_trials))
        console.print(f"results {where}\nfrom another terminal: v2a status {where}", soft_wrap=True)
        # Of a cluster's cores nothing is known here.
        is_local = (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
        expected = _estimate(experiment, num_cpus) if is_local else None
        start = time.monotonic()
        say_starting(address)
        from v2a_ray.cli.display import StageDisplay
        from v2a_ray.orchestration.cluster.session import ray_session
        from v2a_ray.orchestration.sweep.run_sweep import require_same_sweep, run_sweep

        require_same_sweep(experiment, folder)
        with ray_session(num_cpus, verbose, address), StageDisplay(console) as display:
            results = run_sweep(experiment, folder, display)
    from v2a_ray.report.estimate_text import against_truth
    from v2a_ray.report.result_tables import render_cells
    from v2a_ray.report.search_table import render_search

    search = experiment.config.search
    console.print(render_search(results, search, experiment.objectives) if search else render_cells(results))
    console.print(
        "\n".join(f"{where}/{name}" for name in ("results.parquet", "table.md", "curves.png")), soft_wrap=True
    )
    if expected and expected.cpu_hours:
        console.print(against_truth(expected, time.monotonic() - start), style="dim", soft_wrap=True)
    next_step(f"v2a report {where} -o page.html", f"v2a evaluate {where} --best")


def _about(sweep: Sweep, num_trials: int) -> Text:
    return Text.assemble((sweep.name, "bold"), f" · {num_trials:,} trials: {sweep.describe()}")


def _sweep_of(config_file: Path | None, overrides: list[str], resume: str | None) -> Sweep:
    if config_file is not None:
        from v2a_ray.experiments.sweep import load_sweep

        return load_sweep(config_file, overrides)
    from v2a_ray.orchestration.sweep.run_sweep import open_sweep
    from v2a_ray.result_folders import readable_folder

    return open_sweep(readable_folder(resume or "."))


def _print_estimate(sweep: Sweep, num_cpus: int | None) -> None:
    """Print the estimated cost of the sweep on `num_cpus` cores, by default this machine's."""
    from v2a_ray.experiments.sweep import loggers_of
    from v2a_ray.report.estimate_text import render_estimate
    from v2a_ray.report.trackers import require_trackers

    require_trackers(loggers_of(sweep))
    found = _estimate(sweep, num_cpus)
    console.print(_about(sweep, found.num_trials), end="\n\n")
    console.print(render_estimate(found), soft_wrap=True)
    console.print(f"artifacts {sweep.trials[0].config.store}", soft_wrap=True)
    next_step("the same command without --dry-run")


def _estimate(sweep: Sweep, num_cpus: int | None) -> Estimate:
    from v2a_ray.engine.stores import open_store
    from v2a_ray.experiments.estimate import estimate

    return estimate(
        sweep.trials,
        open_store(sweep.trials[0].config.store),
        num_cpus or len(os.sched_getaffinity(0)),
        probes=sweep.probes,
        policies_per_cell=sweep.num_trials // len(sweep.trials),
        max_concurrent_trials=sweep.config.resources.max_concurrent_trials,
        gpus_per_trial=sweep.config.resources.gpus_per_trial,
    )


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one method with all its settings.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """List the methods as combinations of parts, or show one method with its source, deviations and settings."""
    from v2a_ray.experiments import combinations
    from v2a_ray.report.method_table import method_page, methods_table

    if name is not None:
        console.print(method_page(name))
    elif markdown:
        typer.echo(combinations.markdown())
    else:
        console.print(methods_table())
        console.print("`v2a methods NAME` shows one with its source, deviations and settings", style="dim")


def config(
    pattern: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]", help="Part of a key, or with `*`; after --resolve KEY=VALUE..."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Show the defaults of this method; by default of the method that `v2a run` uses.")
    ] = None,
    of_sweep: Annotated[bool, typer.Option("--sweep", help="Show the settings of a sweep file instead.")] = False,
    resolve: Annotated[
        Path | None, typer.Option("--resolve", metavar="CONFIG", help="Print the whole experiment as it would run.")
    ] = None,
) -> None:
    """Print settings with their defaults and meanings, or with --resolve an experiment with all of them as YAML.

    Example: v2a config policy.filter; v2a config --resolve tune_configs/demo.yaml method=dvdf
    """
    import yaml

    from v2a_ray.errors import ConfigError
    from v2a_ray.experiments.experiment import ExperimentConfig
    from v2a_ray.experiments.methods import DEFAULT_METHOD, method_settings
    from v2a_ray.experiments.reading import load_experiment
    from v2a_ray.experiments.sweep_config import SweepConfig
    from v2a_ray.report.result_tables import settings_table

    given = pattern or []
    if resolve is not None:
        settings = load_experiment(resolve, given, notice)
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
        return
    if len(given) > 1:
        raise ConfigError(f"{len(given)} patterns", where="v2a config", remedy="one pattern; KEY=VALUE needs --resolve")
    wanted = given[0] if given else ""
    if of_sweep:
        console.print(settings_table(SweepConfig, {}, wanted))
    else:
        method = method or DEFAULT_METHOD
        seed = ExperimentConfig.model_fields["seed"].default
        over = {"method": method, "upstream_seed": seed, **method_settings(method)}
        console.print(settings_table(ExperimentConfig, over, wanted))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all artifacts, and nothing else.")] = False,
    store: Annotated[str | None, typer.Option(help="By default $V2A_STORE, or runs/artifacts.")] = None,
) -> None:
    """List the reusable artifacts, or remove them; a folder that is no store is left unchanged."""
    from v2a_ray.engine import store_cleaning as housekeeping
    from v2a_ray.engine.store import ArtifactStore
    from v2a_ray.engine.stores import store_address
    from v2a_ray.objects import require_folder_name

    address = store_address(store)
    require_folder_name(address)
    present = ArtifactStore(Path(address))
    if clear:
        removed = housekeeping.clear(present)
        console.print(
            f"removed {removed.num_artifacts} artifacts and {removed.num_leftovers} unfinished or damaged ones, "
            f"{removed.num_bytes / 2**20:,.1f} MiB, from {present.root}",
            soft_wrap=True,
        )
        return
    table = Table("stage", "key", "seconds", "MiB", "", box=None)
    for artifact in housekeeping.artifacts(present):
        size = housekeeping.folder_bytes(artifact.path) / 2**20
        table.add_row(artifact.stage, artifact.key, f"{artifact.seconds:,.1f}", f"{size:.1f}", "")
    for leftover in housekeeping.leftovers(present):
        size = housekeeping.folder_bytes(leftover.path) / 2**20
        table.add_row(leftover.path.parent.name, leftover.path.name, "", f"{size:.1f}", leftover.state)
    console.print(table)
    console.print(str(present.root), soft_wrap=True)
