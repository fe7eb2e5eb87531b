"""`v2a data`: collect, convert, inspect and re-simulate datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console, resumable
from v2a_ray.cli.named_data import named_bounds, named_columns

app = typer.Typer(help="Datasets: collect, convert, export, inspect, re-simulate.", no_args_is_help=True)
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the episode table to write.")]
DataPath = Annotated[
    str, typer.Argument(help="File, folder or URI of data in any format (see `v2a data convert --help`).")
]
InputFormat = Annotated[str | None, typer.Option("--format", help="Name of the format, if looking is not enough.")]
CheckSeverities = Annotated[
    list[str] | None,
    typer.Option("--check", metavar="NAME=SEVERITY", help="error, warning or ignore; `v2a data checks` has the names."),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Write all findings to this file: Markdown if it ends in .md, else JSON."),
]
ColumnNames = Annotated[
    str | None,
    typer.Option("--columns", help="What makes up a transition: '{observation: [q*, dq*], action: a*, episode: run}'."),
]
DomainLabel = Annotated[str, typer.Option("--domain", help="Domain the data come from, e.g. hopper/gravity-0.5@d4rl.")]


@app.command()
def collect(
    domain: DomainLabel,
    output: Output,
    behavior: Annotated[str, typer.Option(help="random, medium, expert, medium-replay, medium-expert")] = "medium",
    policy_domain: Annotated[str | None, typer.Option(help="Whose policy acts; by default the domain's own.")] = None,
    num_transitions: Annotated[int, typer.Option(min=1)] = 10_000,
    noise_std: Annotated[float, typer.Option(min=0.0, help="Gaussian noise on actions in [-1, 1].")] = 0.1,
    seed: int = 0,
    num_actors: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
) -> None:
    """Roll a behaviour out in parallel Ray actors into an episode table. The number of actors does not change it.

    After Ctrl-C or a kill the same command goes on where it stopped: finished episodes are kept beside the output.
    """
    import shutil

    from v2a_ray.cli.experiment_commands import notice
    from v2a_ray.data.config import SourceSpec
    from v2a_ray.data.table.folder import write_table
    from v2a_ray.domains import parse_domain
    from v2a_ray.files import prepare_folder
    from v2a_ray.orchestration.cluster.requirements import require_resources
    from v2a_ray.orchestration.cluster.session import ray_session
    from v2a_ray.orchestration.data.collect import collect_data
    from v2a_ray.report.datasets import render

    spec = SourceSpec(
        domain=domain,
        behavior=behavior,
        policy_domain=policy_domain,
        num_transitions=num_transitions,
        noise_std=noise_std,
        seed=seed,
    )
    from v2a_ray.outputs import require_our_folder

    robot = parse_domain(domain).robot
    require_our_folder(output)
    prepare_folder(output.parent)
    journal = output.absolute().with_name(f".{output.name}.collecting")
    with resumable(), ray_session(), console.status("collecting") as status:
        require_resources({"CPU": 1}, "v2a data collect", notice)
        (table,) = collect_data(
            [spec],
            num_actors=num_actors,
            progress=lambda done, total: status.update(f"collecting {done:,} of {total:,}"),
            journals=[journal],
        )
    write_table(table, output, robot=robot, extra={"spec": spec.model_dump()})
    shutil.rmtree(journal, ignore_errors=True)
    console.print(render(table))
    console.print(str(output), soft_wrap=True)


@app.command()
def convert(
    path: DataPath,
    domain: DomainLabel,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or URI of the episode table to write.")],
    behavior: Annotated[
        str | None, typer.Option(help="Label of the policy that collected it; by default what the name says.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Label of the source; by default the file's name.")] = None,
    format: InputFormat = None,
    report: Report = None,
    check: CheckSeverities = None,
    columns: ColumnNames = None,
    reward: Annotated[
        str | None, typer.Option(help="A number or module:function in place of the recorded rewards.")
    ] = None,
    action_bounds: Annotated[
        str | None,
        typer.Option(help="Scale actions to [-1, 1] from: measured, declared (LeRobot's), or [[LOW, HIGH], ...]."),
    ] = None,
) -> None:
    """Read, check and segment a dataset, and write it as an episode table (Parquet, one row per episode).

    Formats, found by looking at the file: d4rl (HDF5, also of OTDF and ODRL), minari, npz, rllib, rllib-columns,
    parquet, lerobot, robomimic. csv and other Parquet by naming their --columns; docs/formats.md says what maps to
    what. From a path, s3://, gs://, any scheme of fsspec, or minari://D4RL/hopper/medium-v0.

    A d4rl file from 512 MiB on is read in slices by Ray tasks on all cores, with the same result, unless there is a
    --report to write; below that, starting Ray costs more than it saves.
    """
    from v2a_ray.cli.bars import named_bars
    from v2a_ray.data.checks import parse_severities
    from v2a_ray.data.checks.findings import raise_errors
    from v2a_ray.data.formats.location import locate, publishing
    from v2a_ray.data.formats.readers import examine_table, is_worth_ray, resolve_location
    from v2a_ray.data.mixing.mixture import relabel
    from v2a_ray.data.rewards import parse_reward
    from v2a_ray.data.table.folder import write_table
    from v2a_ray.domains import parse_domain
    from v2a_ray.outputs import require_apart, require_replaceable
    from v2a_ray.report.datasets import render
    from v2a_ray.report.findings_file import write_findings
    from v2a_ray.settings.behavior_names import UNKNOWN, behavior_of_name

    parsed, severities = parse_domain(domain), parse_severities(check or [])
    named = named_columns(columns)
    rewards = parse_reward(reward) if reward else None
    bounds = named_bounds(action_bounds)
    require_replaceable(output)
    require_apart(output, [path])
    location = resolve_location(path)
    called = behavior or behavior_of_name(path) or UNKNOWN
    if not report and named is None and rewards is None and bounds is None and is_worth_ray(location, format):
        from v2a_ray.cli.experiment_commands import notice
        from v2a_ray.orchestration.cluster.requirements import require_resources
        from v2a_ray.orchestration.cluster.session import ray_session
        from v2a_ray.orchestration.data.convert import convert_hdf5

        with resumable(), ray_session(), named_bars(console) as bar, publishing(locate(output)) as local:
            require_resources({"CPU": 1}, "v2a data convert", notice)
            task = bar.add_task("converting", total=None)
            manifest = convert_hdf5(
                location,
                local,
                domain=parsed,
                name=name or location.stem,
                behavior=called,
                checks=severities,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        for finding in manifest["findings"]:
            console.print(f"{finding['severity']}: {finding['where']}: {finding['message']}")
        counts = f"{manifest['num_episodes']:,} episodes, {manifest['num_transitions']:,} transitions"
        console.print(f"{counts}: {output}", soft_wrap=True)
        return
    table, findings = examine_table(
        location,
        robot=parsed.robot_spec,
        format=format,
        checks=severities,
        columns=named,
        reward=rewards,
        action_bounds=bounds,
    )
    if report:
        # Written before a check refuses the data, because that is when it is needed most.
        write_findings(report, findings, {"datasets": [path], "checked as": {path: parsed.name}})
    raise_errors(findings)
    keeps_own = behavior is None and set(table.behavior) != {UNKNOWN}
    table = relabel(table, name or location.stem, parsed, None if keeps_own else called)
    with publishing(locate(output)) as local:
        write_table(table, local, robot=parsed.robot, findings=findings)
    console.print(render(table, findings))
    console.print(output, soft_wrap=True)


@app.command()
def export(
    path: DataPath,
    output: Annotated[str, typer.Option("--output", "-o", help="File, folder or URI to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="d4rl, minari, npz, rllib, rllib-columns, lerobot, robomimic or parquet; by default by the ending."
        ),
    ] = None,
) -> None:
    """Write a dataset in another format, for other libraries.

    d4rl: one HDF5 file (.hdf5). npz: a numpy archive with the same keys (.npz). minari: a dataset folder that Minari
    loads. rllib: a folder for RLlib's offline algorithms with input_read_episodes=True; rllib-columns: the same as one
    row per step. lerobot: a v3.0 folder without videos. robomimic: one HDF5 file. Labels survive in minari, rllib and
    parquet.

    Example: v2a data export runs/table -o hopper.hdf5
    """
    from v2a_ray.data.formats.readers import export_table, read_table
    from v2a_ray.outputs import require_apart, require_replaceable

    require_replaceable(output)
    require_apart(output, [path])
    table, _ = read_table(path)
    written = export_table(table, output, format=format)
    console.print(
        f"{table.num_episodes:,} episodes, {table.num_transitions:,} transitions as {written}: {output}",
        soft_wrap=True,
    )


@app.command()
def mix(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment file: its sources and `mix`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. mix.validation_fraction=0.1")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the table to write.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken; write nothing.")] = False,
) -> None:
    """Write the source mix of an experiment as one episode table, or show what it takes.

    It is the table that `v2a run` trains on, and is kept for it. Held-out episodes go to DIR/validation.
    """
    from v2a_ray.cli.display import StageDisplay
    from v2a_ray.data.mixing.mixture import mix_name
    from v2a_ray.engine.plan import make_plan
    from v2a_ray.errors import ConfigError
    from v2a_ray.experiments.reading import load_experiment
    from v2a_ray.files import prepare_folder
    from v2a_ray.orchestration.cluster.session import ray_session
    from v2a_ray.orchestration.data.mix import make_mix, preview_mix
    from v2a_ray.outputs import require_our_folder
    from v2a_ray.report.mix_text import render_mix

    config = load_experiment(config_file, overrides or [])
    if not config.sources:
        raise ConfigError("there are no sources to mix", where=f"{config_file} · sources", remedy="give at least one")
    if output is None and not dry_run:
        raise ConfigError("there is no folder to write to", where="v2a data mix", remedy="give --output, or --dry-run")
    console.print(mix_name(config, make_plan(config)["source"].key), soft_wrap=True)
    if dry_run:
        console.print(render_mix(preview_mix(config)))
        return
    assert output is not None, "checked above"
    require_our_folder(output)
    prepare_folder(output.absolute().parent)
    with resumable(), ray_session(), StageDisplay(console) as display:
        manifest = make_mix(config, output, display)
    for source in manifest["sources"]:
        counts = f"{source['num_episodes']:>8,} episodes {source['num_transitions']:>11,} transitions"
        console.print(f"{source['source']:<34} {counts}")
    console.print(str(output), soft_wrap=True)


@app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or URIs of data.")],
    domain: Annotated[
        str | None, typer.Option(help="Domain that all are of; by default what their labels or names say.")
    ] = None,
    format: InputFormat = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a picture (.png) or a page (.html).")
    ] = None,
    report: Report = None,
    check: CheckSeverities = None,
    columns: ColumnNames = None,
) -> None:
    """Show what is inside datasets and what is wrong with them, each alone and together.

    Together: the same transitions twice, rewards of different scales, domains that are one under two names, data of
    another domain than they say. Exit status 2 if a check of severity `error` fires.

    Example: v2a data inspect a.hdf5 b.hdf5 -o both.html --check action_bounds=warning
    """
    from v2a_ray.cli.console import error_console
    from v2a_ray.data.checks import parse_severities
    from v2a_ray.data.inspection.inspect import inspect_datasets
    from v2a_ray.domains import parse_domain
    from v2a_ray.outputs import require_replaceable
    from v2a_ray.report.dataset_page import check_output, write_inspection
    from v2a_ray.report.datasets import render_inspection
    from v2a_ray.report.findings_file import write_findings

    severities = parse_severities(check or [])
    if output:
        check_output(output)
    if report:
        require_replaceable(report)
    with error_console.status("inspecting"):
        inspection = inspect_datasets(
            paths,
            domain=parse_domain(domain) if domain else None,
            format=format,
            checks=severities,
            columns=named_columns(columns),
        )
    console.print(render_inspection(inspection))
    if output:
        write_inspection(output, inspection)
        console.print(str(output), soft_wrap=True)
    if report:
        write_findings(report, inspection.findings, {"datasets": paths, "checked as": inspection.assumed})
    if inspection.has_errors:
        raise typer.Exit(2)


@app.command("list")
def list_command(
    folder: Annotated[Path, typer.Argument(help="Searched with everything below it.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the datasets under a folder, from manifests and metadata; `?` is what only reading all of it would tell."""
    from v2a_ray.data.inspection.listing import list_datasets
    from v2a_ray.report.datasets import render_list

    listed = list_datasets(folder)
    if as_json:
        console.print_json(data=[each.to_dict() for each in listed])
    elif listed:
        console.print(render_list(listed))
    else:
        console.print(f"no dataset under {folder}", soft_wrap=True)


@app.command()
def checks() -> None:
    """List every check of data: what it is called, how severe it is by default, when it fires and what to do."""
    from v2a_ray.report.datasets import render_checks

    console.print(render_checks())


@app.command()
def fidelity(
    files: Annotated[list[Path], typer.Argument(help="HDF5 files in D4RL's layout, or episode tables.")],
    domain: Annotated[
        str | None, typer.Option(help="Domain the data claim; by default what their labels or names say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object, or a list of several.")] = False,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Spread this many rows over each file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write a page of Markdown.")] = None,
) -> None:
    """Re-simulate every transition: were the data recorded in the domain they claim?

    Beside it stand the same rows in the stock robot and in modern physics. Where the domain does not reproduce the
    data, the verdict names the one that does best. An episode table of several domains gets a row for each.
    """
    from v2a_ray.cli.console import error_console
    from v2a_ray.data.fidelity.recorded import check_names, compare, recordings
    from v2a_ray.domains import parse_domain
    from v2a_ray.outputs import MARK, new_file, require_ours
    from v2a_ray.report.fidelity_table import render_comparisons, to_markdown

    claimed = parse_domain(domain) if domain else None
    if output:
        require_ours(output)
    if claimed is None:
        check_names(files)
    comparisons = []
    with error_console.status("reading") as status:
        for file in files:
            for recording in recordings(file, claimed):
                status.update(f"re-simulating {file.name} in {recording.domain.name}")
                comparisons.append(compare(recording, max_rows))
    if as_json:
        rows = [each.to_dict() for each in comparisons]
        console.print_json(data=rows[0] if len(rows) == 1 else rows)
    else:
        console.print(render_comparisons(comparisons))
    if output:
        options = {"--domain": domain, "--max-rows": max_rows}
        arguments = [f"{name} {value}" for name, value in options.items() if value is not None]
        command = " \\\n  ".join(["v2a data fidelity", *arguments, *(file.name for file in files)])
        with new_file(output) as partial:
            partial.write_text(f"<!-- {MARK} -->\n\n{to_markdown(comparisons, command)}")
