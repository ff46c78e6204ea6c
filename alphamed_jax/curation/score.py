"""`alphamed curate score`: how often a base model answers each question right, out of K responses.

    alphamed curate score --model quickstart --data quickstart --samples 5
    alphamed curate score --model meta-llama/Llama-3.1-8B-Instruct --data medqa medmcqa --samples 5
    alphamed curate score --model FOLDER --data medmcqa=train.jsonl --limit 1000

All questions go through the sampler as one stream, on any mesh and in several processes. Neither
they nor their prompts or responses are held in memory, and a killed scoring goes on by the same
command, to the same scores. The output folder holds scores.parquet, which `alphamed curate pick`
takes, scores.json and report.html. docs/data.md has all of it in words.
"""

from alphamed_jax.curation import score_settings
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.scoring import score_questions
from alphamed_jax.evaluation.subject import find_subject
from alphamed_jax.evaluation.together import joined

Arguments, read = ScoreSettings, score_settings.read


def score(settings: ScoreSettings) -> None:
    """Join the other processes, then score."""
    assert settings.model is not None
    with joined(settings) as console:
        subject = find_subject(settings.model, settings.model_revision)
        score_questions(settings, subject, console)
