"""`python -m alphamed_jax.train`: reinforcement learning from the answer key alone.

    python -m alphamed_jax.train                                    the embedded quickstart
    python -m alphamed_jax.train --config configs/alphamed_8b.yaml --mesh 8x8
    python -m alphamed_jax.train --model FOLDER_OR_HUB_ID --data medmcqa=train.jsonl

The same command run again resumes; SIGTERM, SIGHUP or Ctrl-C saves at the next step border and
exits with 0, a second one ends at once. A closed pipe (`| head`) does not end a run.
"""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from alphamed_jax import cli
from alphamed_jax.config import Config, parse_config
from alphamed_jax.curation.model_card import model_card
from alphamed_jax.data.draws import Draws
from alphamed_jax.data.prompts import render_prompt
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation import in_training
from alphamed_jax.evaluation.best import BestStep
from alphamed_jax.evaluation.in_training import Evaluation
from alphamed_jax.model import hf, lora, peft_folder
from alphamed_jax.model.config import Params
from alphamed_jax.model.finite import not_finite
from alphamed_jax.model.mesh import parse_mesh
from alphamed_jax.model.network import count_parameters
from alphamed_jax.output import fingerprint, record, storage
from alphamed_jax.output.checkpoint import Checkpoints, DamagedCheckpoint
from alphamed_jax.output.folder import bind_output_dir
from alphamed_jax.output.lock import only_one
from alphamed_jax.output.messages import first_step_line, warnings_for
from alphamed_jax.output.metrics import MetricsLog
from alphamed_jax.output.revisions import settle_revisions
from alphamed_jax.output.samples import describe_samples
from alphamed_jax.planning.here import memory_line
from alphamed_jax.reporting.render import write_report
from alphamed_jax.rl.policy import load_params
from alphamed_jax.rl.step import grpo_step
from alphamed_jax.rl.update import TrainState, abstract_state, init_state
from alphamed_jax.runtime import agreement, distributed
from alphamed_jax.runtime.compilation import FirstStep, ProgramCounter, use_cache
from alphamed_jax.runtime.liveness import Liveness
from alphamed_jax.terminal.display import (
    adapter_line,
    batch_arithmetic,
    evaluation_lines,
    gave_up,
    letters_line,
    make_console,
    progress_line,
    question_lines,
    sample_table,
    show_first_prompt,
    start_panel,
    typical_seconds,
    warn,
)
from alphamed_jax.terminal.notices import start_notices
from alphamed_jax.training import Run, prepare


class Progress(NamedTuple):
    """Where a run stands: all that a checkpoint restores."""

    step: int
    cursor: int
    """Questions drawn so far."""
    state: TrainState
    draws: Draws
    """What the next questions depend on beside the cursor."""


def starting_point(run: Run, checkpoints: Checkpoints, console: Console) -> Progress:
    """The newest checkpoint that can be read, or the model's weights at step 0.

    Raises:
      UserError: the checkpoints are of another run, or none of them can be read.
    """
    damaged = []
    while (step := checkpoints.latest()) is not None:
        start, reason = None, "another process says so"
        try:
            start = resumed(run, checkpoints, step, console)
        except DamagedCheckpoint as error:
            reason = str(error)
        if distributed.all_of_them(start is not None):
            assert start is not None
            return start
        damaged.append(f"checkpoint {step} cannot be read ({reason})")
        kept = checkpoints.set_aside(step)
        warn(console, f"{damaged[-1]}; it is now {kept}.")
    if damaged:
        raise UserError(
            f"{run.config.checkpoint_folder}: {'; '.join(damaged)}, and there is none before; put "
            "one back, or choose another --output to start over."
        )
    return Progress(0, 0, fresh_state(run), run.draws)


def fresh_state(run: Run) -> TrainState:
    """Weights and optimiser at step 0."""
    params = load_params(run.policy, run.config)
    return init_state(run.policy.objective(run.config), params)


def resumed(run: Run, checkpoints: Checkpoints, step: int, console: Console) -> Progress:
    """What the checkpoint of `step` holds.

    Raises:
      UserError: it is of another run, or a run of fewer steps was asked for.
      DamagedCheckpoint: it cannot be read, or holds NaN or infinities.
    """
    saved = checkpoints.record(step)
    if step > run.config.steps:
        raise UserError(
            f"{run.config.folder} has done {step} steps already, more than --steps "
            f"{run.config.steps}; choose another --output for a shorter run."
        )
    place = run.config.checkpoint_folder
    for note in record.check_resumable(place, saved, run.config, run.identity):
        warn(console, note)
    policy, adapters = run.policy, run.config.lora
    params = lora.abstract(policy.model, adapters, policy.update_mesh, policy.compute.dtype)
    learned = abstract_state(policy.objective(run.config), lora.learned(params))
    state = checkpoints.restore(step, learned)
    if broken := not_finite(state):
        raise DamagedCheckpoint(f"NaN or infinite: {', '.join(broken[:3])}")
    if adapters.rank:  # beside the frozen model, which no checkpoint holds
        frozen = fresh_state(run).params
        state = state._replace(params=lora.with_learned(frozen, state.params))
    draws = run.draws.restored(saved.get("draws", {}))
    return Progress(step, saved["questions_drawn"], state, draws)


def train(config: Config, console: Console, liveness: Liveness | None = None) -> None:
    """Train, evaluate before and after, export; resume where an earlier run stopped.

    Args:
      liveness: tells the other processes up to where the run is saved; None: there are none.
    """
    began = time.perf_counter()
    with ProgramCounter() as programs, contextlib.ExitStack() as held:
        config, newer = settle_revisions(config)
        run = prepare(config)
        config = run.config
        held.enter_context(jax.set_mesh(run.policy.update_mesh))
        agreement.same_everywhere("run", run.identity | in_training.identity_of(run.benchmarks))
        if newer:
            console.print(newer, markup=False)
        finished = 0
        if distributed.is_main():  # only its output folder counts, and it may be the only one
            finished = held.enter_context(bind_output_dir(config, run.identity))
        if finished := distributed.of_main(finished):
            done = f"all {config.steps} steps are done."
            if finished < config.steps:
                done = f"eval.patience stopped it early, after step {finished}."
            console.print(f"{config.folder} is finished: {done}", markup=False)
            return
        storage.make_shared(config.checkpoint_folder)
        if config.checkpoints and distributed.is_main() and not storage.is_url(config.checkpoints):
            held.enter_context(only_one(Path(config.checkpoints), "--checkpoints"))
        with distributed.StopRequest() as stop, Checkpoints(config.checkpoint_folder) as saved:
            start = starting_point(run, saved, console)
            record.write_config(config.folder, config)
            show_start(console, run, resumed_from=start.step or None)
            restore_logs(run, saved, start.step, console)
            sizes = len(run.train), len(run.heldout)
            card = model_card(config, *sizes, run.revisions, run.manifests)
            best, live = BestStep(config, run.policy, run.measure, card), liveness or Liveness()
            step, _, state, _ = train_loop(run, saved, best, stop, console, programs, start, live)
        best.settle(step)
        if step < config.steps and not best.ends:
            console.print(f"stopped after step {step}; the same command resumes.")
            return
        if config.lora.rank:
            factors, base = lora.learned(state.params)["layers"], config.model
            adapter = config.folder / "adapter"
            peft_folder.save(adapter, run.policy.model, config.lora, factors, base, card=card)
        if config.export:
            export, source = config.folder / "export", run.policy.folder
            hf.save(export, run.policy.model, state.params, source, card=card)
        if distributed.is_main():
            write_record(run, step, best, time.perf_counter() - began, programs.first)
            write_report(config.folder)
        for line in best.closing_lines(step):
            console.print(line, markup=False)
        took = time.perf_counter() - began
        console.print(f"finished {step} steps in {took:.0f} s: {config.folder}", markup=False)


def restore_logs(run: Run, saved: Checkpoints, step: int, console: Console) -> None:
    """On a new machine take over metrics and samples of the steps before from the checkpoint."""
    if step:
        logs = saved.record(step).get("logs", {})  # reading is a matter of all processes
        if distributed.is_main() and (names := record.restore_logs(run.config.folder, logs)):
            console.print(f"{', '.join(names)} of step 1 to {step}: taken from the checkpoint.")


def train_loop(
    run: Run,
    saved: Checkpoints,
    best: BestStep,
    stop: distributed.StopRequest,
    console: Console,
    programs: ProgramCounter,
    start: Progress,
    liveness: Liveness,
) -> Progress:
    """Step until the steps or `eval.patience` end, or a stop is asked for; the end is saved."""
    config, policy = run.config, run.policy
    step, cursor, state, draws = start
    reference: Params | None = None
    if config.loss.kl_coef > 0 and not config.lora.rank:
        _, reference = hf.load(policy.folder, policy.update_mesh, dtype=policy.compute.dtype)
    seconds: list[float] = []
    with MetricsLog(config.folder, resume_step=step, enabled=distributed.is_main()) as log:
        if missing := best.resume(step, state.params):
            warn(console, missing)
        if step == 0 and not stop.asked():
            evaluation = evaluate_step(run, state.params, step, log)
            take_in(evaluation, state.params, best, saved, console)
        while step < config.steps and not best.ends and not stop.asked():
            liveness.saved = saved.complete()
            best.settle(liveness.saved)
            step += 1
            state, metrics, scored = grpo_step(policy, config, state, reference, draws, cursor)
            draws = draws.after(cursor, scored.group_rewards)
            cursor += len(scored.questions)
            samples = describe_samples(policy, config, scored)
            due = config.eval.due(step, config.steps)
            evaluation = evaluate_step(run, state.params, step, log) if due else None
            log.log(step, metrics, evaluation)
            log.log_samples(step, samples)
            seconds.append(metrics["time/step"] or 0.0)
            console.print(progress_line(step, config.steps, metrics, typical_seconds(seconds)))
            if first := programs.step_done():
                console.print(first_step_line(first._asdict()))
            if given_up := gave_up(
                int(scored.effective.sum()),
                len(scored.questions),
                wanted=config.rollout.prompts,
                rounds=len(scored.questions) // config.rollout.prompts,
            ):
                console.print(f"  {given_up}")
            for warning in warnings_for(metrics):
                warn(console, warning, indent="  ")
            if config.log.table_every and step % config.log.table_every == 0:
                if letters := letters_line(metrics):
                    console.print(letters)
                console.print(sample_table(samples, step=step))
            take_in(evaluation, state.params, best, saved, console)
            if step == config.steps or step % config.checkpoint_every == 0:
                save(run, saved, Progress(step, cursor, state, draws))
    save(run, saved, Progress(step, cursor, state, draws))
    return Progress(step, cursor, state, draws)


def save(run: Run, saved: Checkpoints, now: Progress) -> None:
    """Begin a checkpoint; one that is not in the output folder holds the logs, too."""
    elsewhere = run.config.checkpoints and distributed.is_main()
    logs = record.read_logs(run.config.folder) if elsewhere else {}
    drawn = now.draws.record()
    cursor = record.cursor(run.config, now.step, now.cursor, logs, run.identity, drawn)
    state = now.state._replace(params=lora.learned(now.state.params))
    saved.save(now.step, state, cursor)


def evaluate_step(run: Run, params: Params, step: int, log: MetricsLog) -> Evaluation | None:
    """Evaluate on the held-out questions and the benchmarks, and log it; None: there are none."""
    if not run.heldout and not run.benchmarks:
        return None
    found = in_training.evaluate(run.policy, run.config, params, run.heldout, step, run.benchmarks)
    log.log_eval(step, found)
    return found


def take_in(
    evaluation: Evaluation | None,
    params: Params,
    best: BestStep,
    saved: Checkpoints,
    console: Console,
) -> None:
    """Show an evaluation, if there is one, and keep the weights if they are the best so far."""
    if evaluation is None:
        return
    for line in evaluation_lines(evaluation):
        console.print(line, markup=False)
    if news := best.evaluated(evaluation, params, begun=saved.latest()):
        console.print(f"  {news}", markup=False)


def write_record(
    run: Run, step: int, best: BestStep, seconds: float, first: FirstStep | None
) -> None:
    """Write run.json; with it the run counts as finished."""
    record.write_run(
        run.config.folder,
        run.config,
        run.policy.mesh,
        parameters=count_parameters(run.policy.model),
        questions={
            "rows": run.rows,
            "train": len(run.train),
            "held_out": len(run.heldout),
            "dropped": sum(run.dropped.values()),
            "dropped_for": run.dropped,
            "revisions": run.revisions,
            **({"manifests": run.manifests} if run.manifests else {}),
        },
        seconds=seconds,
        first=first,
        identity=run.identity,
        best=best.record(),
        stopped_early=step if step < run.config.steps else None,
    )


def show_start(console: Console, run: Run, resumed_from: int | None) -> None:
    """Print what is about to run, down to the first prompt as the model sees it."""
    config, mesh = run.config, run.policy.mesh
    device = mesh.devices.flat[0]
    console.print(
        start_panel(
            model=config.model,
            parameters=count_parameters(run.policy.model),
            devices=f"{mesh.size} x {device.device_kind} in {jax.process_count()} process(es)",
            mesh=dict(mesh.shape),
            update_mesh=dict(run.policy.update_mesh.shape) if config.update.mesh else None,
            batch=batch_arithmetic(
                config.rollout.prompts,
                config.rollout.group_size,
                micro_batch=config.update.micro_batch,
                mini_batches=config.update.mini_batches,
                epochs=config.update.epochs,
                max_rounds=config.rollout.max_rounds,
            ),
            adapters=adapter_line(config, run.policy.model, run.policy.compute.dtype.name),
            questions=question_lines(len(run.train), len(run.heldout), run.dropped, run.rows),
            output=str(config.folder),
            resumed_from=resumed_from,
        )
    )
    if found := memory_line(config, run.policy.model, run.policy.mesh, jax.local_devices()):
        line, fits = found
        console.print(line if fits else f"warning: {line}", style=None if fits else "yellow")
    asked, context = [*run.train, *run.heldout], run.policy.model.max_position_embeddings
    for notice in start_notices(config, run.policy.tokenizer, asked, run.policy.stop_ids, context):
        warn(console, notice)
    [first] = run.draws.next(0, 1)
    text = render_prompt(run.policy.tokenizer, first.question, config.prompt)
    show_first_prompt(console, text, first.token_ids)
    if run.policy.automaton.inside_thought:
        console.print("prompts end with an open <think>: answers count from </think> on.")


def start(config: Config) -> None:
    """Join the other processes, then train."""
    devices = None if config.mesh == "auto" else int(np.prod(parse_mesh(config.mesh)))
    flags = (config.coordinator, config.num_processes, config.process_id)
    with distributed.start(devices, *flags) as liveness:
        console = make_console()
        console.quiet = not distributed.is_main()
        agreement.same_everywhere("settings", fingerprint.of_settings(config))
        if problem := use_cache(config.compilation_cache):
            warn(console, problem)
        train(config, console, liveness)


def main() -> None:
    cli.run("train", start, parse_config, __doc__)


if __name__ == "__main__":
    main()
