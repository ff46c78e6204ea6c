"""`alphamed curate score`: how often a base model answers each question right, out of K responses.

    alphamed curate score --model quickstart --data quickstart --samples 5
    alphamed curate score --model meta-llama/Llama-3.1-8B-Instruct --data medqa medmcqa --samples 5
    alphamed curate score --model FOLDER --data medmcqa=train.jsonl --limit 1000

All questions go through the sampler as one stream, on any mesh and in several processes. Neither
their prompts nor their responses are held in memory, and a killed scoring goes on by the same
command, to the same scores. The output folder holds scores.parquet, which `alphamed curate pick`
takes, scores.json and report.html. docs/data.md has all of it in words.
"""

import numpy as np

from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.curation import score_settings
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.scoring import score_questions
from alphamed_jax.evaluation.subject import find_subject
from alphamed_jax.model.mesh import parse_mesh
from alphamed_jax.output import fingerprint
from alphamed_jax.runtime import agreement, distributed
from alphamed_jax.runtime.agreement import SETTINGS
from alphamed_jax.runtime.compilation import use_cache
from alphamed_jax.terminal.display import make_console

Arguments, read = ScoreSettings, score_settings.read


def score(settings: ScoreSettings) -> None:
    """Join the other processes, then score."""
    devices = None if settings.mesh == "auto" else int(np.prod(parse_mesh(settings.mesh)))
    together = (settings.coordinator, settings.num_processes, settings.process_id)
    with distributed.start(devices, *together):
        console = make_console()
        console.quiet = not distributed.is_main()
        shared = settings_without(settings, Mark.MAY_DIFFER)
        shared = {SETTINGS + name: value for name, value in shared.items()}
        agreement.same_everywhere("settings", shared | fingerprint.of_versions())
        if problem := use_cache(settings.compilation_cache):
            console.print(f"warning: {problem}", style="yellow", markup=False)
        assert settings.model is not None
        subject = find_subject(settings.model, settings.model_revision)
        score_questions(settings, subject, console)
