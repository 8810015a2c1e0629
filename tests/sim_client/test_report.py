"""The report of a run, built from a directory alone, in Markdown and in HTML."""

from __future__ import annotations

import base64
import io
import json
import re
import resource
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sim_client.commands.report import show_result
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.record import CameraStatistics, EpisodeRecord, Provenance, WallTime
from sim_client.errors import RecordsError
from sim_client.results.directory import ResultsDirectory, read_results
from sim_client.results.report import markdown, suite_json, write_report, write_suite_report
from sim_client.results.summary import summarize
from sim_client.statistics.sequence import ConfidenceSequence

PROVENANCE = Provenance("tiny/test/9", "hash", 0, {}, {}, ())


def episode(index: int, outcome: str, at_end: bool = False, **changes: object) -> EpisodeRecord:
    once = outcome == "success"
    base = EpisodeRecord(
        index=index,
        seed=index,
        env_id="PushCube-v1",
        outcome=outcome,
        success_once=once,
        success_at_end=at_end,
        steps=10 + index,
        provenance=PROVENANCE,
        first_success=5 if once else None,
        chunks=2,
        wall=WallTime(1.0, 2.0, 1.0, total_s=5.0),
        stages={"is_grasped": 3 if once else None},
        state_outside_share=0.1,
        state_outside_by_dimension=(0.8, *(0.0,) * 7),
        cameras={"observation/image": CameraStatistics((10.0, 10.0, 10.0), (1.0, 1.0, 1.0))},
        round_trip_ms=(10.0, 30.0),
        infer_ms=(8.0, 20.0),
    )
    return replace(base, **changes)


@pytest.fixture
def store(describe_run, tmp_path: Path) -> Callable[..., Path]:
    """Leave a run behind as an evaluation does, without its report."""

    def build(*records: EpisodeRecord, into: str = "out", run: dict | None = None, **changes: object) -> Path:
        described = replace(describe_run(**changes), **(run or {}))
        with ResultsDirectory(tmp_path / into, described) as directory:
            for one in records:
                directory.append(one)
        return tmp_path / into

    return build


@pytest.fixture
def report(store) -> Callable[..., str]:
    def build(*records: EpisodeRecord, **changes: object) -> str:
        run, final = read_results(store(*records, **changes))
        return markdown(run, final, summarize(run, final))

    return build


@pytest.fixture
def page(store) -> Callable[..., str]:
    def build(*records: EpisodeRecord, **changes: object) -> str:
        directory = store(*records, **changes)
        write_report(directory)
        return (directory / "report.html").read_text()

    return build


class Page(HTMLParser):
    """Tags that were left open, what the page would load, and its text outside of styles and scripts."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif tag == "a" and name == "href":
                self.links.append(value)
            elif name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.loads.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += f"{data} "


def film(path: Path, *, last: tuple[int, int, int]) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for colour in [(0, 0, 0)] * 5 + [last]:
            frame = np.full((64, 64, 3), colour, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


FOUR = (episode(0, "success", at_end=True), episode(1, "success"), episode(2, "timeout"), episode(3, "failure"))


def test_the_headline_names_its_success_and_both_have_intervals(report):
    first = report(*FOUR).splitlines()[0]
    assert first == (
        "# PushCube-v1: success_once 2/4 = 50% [15%, 85%], success_at_end (10 steps after success) 1/4 = 25% [5%, 70%]"
    )


def test_the_end_is_the_limit_when_episodes_run_to_it(report):
    first = report(*FOUR, settle_steps=None).splitlines()[0]
    assert first == "# PushCube-v1: success_once 2/4 = 50% [15%, 85%], success_at_end 1/4 = 25% [5%, 70%]"


def test_the_time_of_void_attempts_is_stated(report):
    text = report(*FOUR[:2], replace(FOUR[2], lost_s=2.5), replace(FOUR[3], outcome="error", lost_s=4.0))
    assert "Void attempts, in no row above: 6.5 s, waiting to begin anew included." in text


def test_errors_are_in_no_denominator_silently(report):
    text = report(*FOUR[:3], episode(3, "error", error="unavailable: gone"))
    assert "success_once 2/3 = 67%" in text
    assert "1 ended in an error (counted as failures: 2/4 = 50% [15%, 85%])" in text.splitlines()[0]
    assert "| error | 1 | infrastructure" in text
    assert "unavailable: gone |" in text


def test_an_unfinished_run_says_so(report):
    assert "2 of 4 episodes are still to run" in report(*FOUR[:2]).splitlines()[0]


def test_a_run_without_episodes_has_a_report_too(report):
    assert "success_once 0/0" in report().splitlines()[0]


def test_stages_lengths_times_latency_and_drift_are_shown(report):
    text = report(*FOUR)
    for part in (
        "| is_grasped | 2/4 = 50% [15%, 85%] |",
        "Episode length in steps: min 10, q50 11.5, q95 12.85, max 13.",
        "| rendering | 8.0 | 40% |",
        "| other | 4.0 | 20% |",
        "| round trip (client) | 20.0 ms | 30.0 ms | 8 |",
        "outside the training q01 to q99: 10.0%",
        "| `observation/image` | 10, 10, 10 | 20, 20, 20 | 1, 1, 1 | 5, 5, 5 |",
    ):
        assert part in text


def test_overrides_and_mismatches_stand_in_the_report(report):
    text = report(*FOUR, camera_size=(32, 32), prompt="Push.", allow_mismatch=("observation.cameras",))
    assert "- Override `--camera-size 32x32`" in text
    assert "- **Mismatch allowed**: observation.cameras.base_camera.size: the policy has 64x64, the simulator" in text
    assert "- Note: The prompt 'Push.' was not seen in training" in text


def test_a_run_as_trained_says_that_nothing_was_changed(report):
    assert "None: the simulation is the one that the policy was trained in." in report(*FOUR)


def test_the_command_can_be_pasted_into_a_shell(report):
    assert "```\nsim-client --env PushCube-v1 --prompt 'two words'\n```" in report(*FOUR)


def test_every_episode_has_a_row(report):
    rows = [line for line in report(*FOUR).splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |", "| 4 |"))]
    assert rows[0] == "| 1 | 0 | success | step 5 | yes | 10 | 2 | 5.0 | 1 |  |"
    assert len(rows) == 4


def test_the_top_says_everything_that_bends_the_numbers(report):
    text = report(
        replace(FOUR[0], attempts=2, lost_s=1.5),
        episode(1, "error", error="unavailable: gone"),
        episodes=6,
        camera_size=(32, 32),
        allow_mismatch=("observation.cameras",),
        run={"extended_from": (2,)},
    )
    top = text[: text.index("## Overrides")]
    for title in (
        "> **1 of 6 episodes ended in an error.** The infrastructure broke, which is no verdict on the policy: they "
        "are in no rate. Counted as failures, success_once is 1/2 = 50% [9%, 91%].",
        "> **4 of 6 planned episodes have no result.**",
        "> **Begun more than once: 1 of 6 episodes.** Void attempts took 1.5 s.",
        "> **The run was extended.** It was planned with 2 episodes and continued to 6 afterwards.",
        "> **Mismatches with training that were allowed: 2.**",
        "> **Overrides: 1.**",
    ):
        assert title in top


def test_the_interval_of_a_run_stopped_when_sure_is_the_anytime_valid_one(report, page):
    run = {"stopped_after": 2, "sure_interval": (0.21, 0.97)}
    first = report(*FOUR[:2], stop_when_sure=0.8, run=run).splitlines()[0]
    assert first == (
        "# PushCube-v1: success_once 2/2 = 100% [21%, 97%] (anytime-valid), success_at_end (10 steps after success) "
        "1/2 = 50% [9%, 91%]; stopped when sure, after 2 of 4 planned episodes"
    )
    text = Page(page(*FOUR[:2], into="page", stop_when_sure=0.8, run=run)).text
    assert "Stopped after 2 of 4 planned episodes (--stop-when-sure)" in text
    assert "95% interval (anytime-valid) 21% to 97%" in text


def anytime(*verdicts: bool) -> tuple[float, float]:
    sequence = ConfidenceSequence()
    for verdict in verdicts:
        sequence.add(verdict)
    return sequence.interval


def test_a_run_that_never_got_sure_has_the_anytime_valid_interval_too(report):
    text = report(*FOUR, stop_when_sure=0.1)
    interval = "[{:.0%}, {:.0%}]".format(*anytime(True, True, False, False))
    assert text.startswith(f"# PushCube-v1: success_once 2/4 = 50% {interval} (anytime-valid), success_at_end")
    assert (
        "> **Not sure after 4 of 4 planned episodes (--stop-when-sure).** The interval that counts is the "
        f"anytime-valid one on success_once, {interval}. The Wilson intervals assume a number of episodes that was "
        "fixed in advance, and are too narrow here.\n"
    ) in text


def test_the_anytime_valid_interval_ends_at_the_first_episode_without_a_verdict(report):
    text = report(FOUR[0], episode(1, "error", error="gone"), *FOUR[2:], stop_when_sure=0.1)
    interval = "[{:.0%}, {:.0%}]".format(*anytime(True))
    assert (
        f"anytime-valid one on success_once, {interval}. It is over the first 1 of the list, for the next one has no "
        "verdict. The Wilson"
    ) in text


def test_an_extension_after_a_stop_is_told_as_what_it_was(report):
    planned = {"episodes": 8, "stop_when_sure": 0.8}
    stopped = {"stopped_after": 4, "sure_interval": (0.1, 0.9)}
    before = report(*FOUR, **planned, run={**stopped, "extended_from": (6,)}, into="before")
    assert "extended" not in before  # no episode that was added counts
    assert "> **Stopped after 4 of 8 planned episodes (--stop-when-sure).**" in before
    within = report(*FOUR, **planned, run={**stopped, "extended_from": (2,)}, into="within")
    assert (
        "> **The run was extended.** It was planned with 2 episodes and continued to 8 afterwards. The anytime-valid "
        "interval allows for that.\n"
    ) in within


def test_a_void_attempt_of_an_earlier_sitting_is_told(report):
    text = report(episode(0, "error", error="gone", lost_s=2.0), FOUR[0], *FOUR[1:])
    assert "> **Begun more than once: 1 of 4 episodes.** Void attempts took 2.0 s." in text


def test_a_report_that_cannot_be_written_says_what_is_kept_and_what_finishes_it(store):
    directory = store(*FOUR, into="two words")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as a full disk would
    try:
        with pytest.raises(RecordsError) as error:
            write_report(directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.message == (
        f"{directory}/report.md cannot be written: File too large. All finished episodes are kept. "
        f"Once that is mended, `sim-client report '{directory}'` writes the report."
    )
    assert not list(directory.glob("*report*"))


def test_stages_say_when_they_were_reached(report):
    text = report(*FOUR)
    assert "| is_grasped | 2/4 = 50% [15%, 85%] | step 3 |" in text
    assert "| success | 2/4 = 50% [15%, 85%] | step 5 |" in text


def test_drift_is_told_by_dimension_of_the_state(report):
    assert "- The same by dimension of the state: qpos[0] 80.0%, qpos[1] 0.0%, qpos[2]" in report(*FOUR)


def test_what_latency_did_is_told_where_the_robot_has_a_clock(report):
    use = ChunkUse(3, latency_ms=100.0)
    held = [replace(one, chunk_use=use, delay_steps=(2, 2), held_steps=2) for one in FOUR]
    text = report(*held, latency_ms=100.0)
    assert "3 actions of each chunk executed, replies delayed by 100 ms." in text
    line = (
        "The robot held still for want of a chunk in 17.4% of the steps; a reply took min 2, q50 2, q95 2, max 2 steps."
    )
    assert line in text
    assert "held still" not in report(*FOUR, into="none")


def test_a_pause_between_two_sittings_takes_no_time(report):
    times = ("2030-01-01T00:00:05", "2030-01-01T00:00:11", "2030-01-02T00:00:00", "2030-01-02T00:00:05")
    text = report(*(replace(one, finished_at=f"{at}+00:00") for one, at in zip(FOUR, times, strict=True)))
    assert "Episodes per minute: 11.4, over 21 s in which at least one ran; errors count as none." in text


def test_episodes_side_by_side_take_their_time_once(report):
    text = report(*(replace(one, finished_at="2030-01-01T00:00:05+00:00") for one in FOUR))
    assert "Episodes per minute: 48.0, over 5 s in which at least one ran" in text


def test_environments_in_one_worker_are_counted_for_the_worker(report):
    seconds = (replace(one, finished_at="2030-01-01T00:00:05+00:00") for one in FOUR)
    text = report(*seconds, sim_backend="gpu")
    assert "Episodes per minute of one worker: 12.0, over 20 s of all workers; errors count as none." in text


def test_markdown_shows_no_markup_of_a_prompt(report):
    text = report(*FOUR, prompt="<b>Push</b>\n# now")
    assert "prompt “\\<b>Push\\</b> # now”" in text


HOSTILE = "<script>alert(\"1\")</script> & 'co' $x$ </title>"


_hostile: list[str] = []


@pytest.fixture
def hostile(page) -> str:
    """Drawn once for all tests that only read it."""
    if not _hostile:
        _hostile.append(page(*FOUR, episode(4, "error", error=HOSTILE), prompt=HOSTILE, episodes=5))
    return _hostile[0]


def test_the_page_is_well_formed_and_loads_nothing(hostile):
    parsed = Page(hostile)
    assert (parsed.open, parsed.misnested) == ([], [])
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(url.startswith(("#", "data:")) for url in parsed.loads)
    assert {url[1:] for url in parsed.loads if url.startswith("#")} <= set(parsed.ids)
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r">[^<]*<", "><", hostile))
    assert set(parsed.links) == {"run.json", "episodes.jsonl"}
    assert "default-src 'none'" in hostile


def test_the_page_runs_no_script_of_a_prompt_or_an_error(hostile):
    parsed = Page(hostile)
    assert parsed.tags.count("script") == 1
    assert parsed.text.count(HOSTILE) >= 3  # the prompt, its override, the error


def test_every_number_of_the_markdown_stands_in_the_page(page):
    text = " ".join(Page(page(*FOUR, episode(4, "error", error="unavailable: gone"), episodes=6)).text.split())
    for part in (
        "50% 2/4 95% interval (Wilson) 15% to 85%",
        "25% 1/4 95% interval (Wilson) 5% to 70%",
        "40% 2/5 95% interval (Wilson) 12% to 77%",
        "1 of 6 episodes ended in an error",
        "1 of 6 planned episodes have no result",
        "is_grasped 2/4",
        "median demonstration (10)",
        "95% of demonstrations (11)",
        "longest demonstration (12)",
        "limit (20)",
        "min 10, q50 11.5, q95 12.85, max 13",
        "rendering 8.0 40%",
        "round trip (client) 20.0 ms 30.0 ms 8",
        "round trip p95 (30.0 ms)",
        "10.0% on average",
        "qpos[0]",
        "10, 10, 10",
        "sim-client --env PushCube-v1 --prompt 'two words'",
        "unavailable: gone",
    ):
        assert part in text


def test_a_clean_run_says_that_it_is_clean(page):
    text = Page(page(*(replace(one, outcome="success") for one in FOUR))).text
    assert "Every planned episode has a verdict, and the simulation is the one that the policy was trained in" in text
    assert "Before you believe the numbers" not in text


@pytest.mark.parametrize("records", [(), FOUR[:1], (episode(0, "error", error="gone"),)])
def test_a_run_with_hardly_a_record_has_a_page_that_says_so(page, records):
    parsed = Page(page(*records))
    assert (parsed.open, parsed.misnested) == ([], [])
    assert f"{4 - len(records)} of 4 planned episodes have no result" in parsed.text


def test_the_same_records_give_the_same_bytes(store):
    directory = store(*FOUR)
    film(directory / "videos" / "seed_2_timeout.mp4", last=(200, 0, 0))
    texts = []
    for _ in range(2):
        write_report(directory)
        texts.append([(directory / name).read_bytes() for name in ("report.md", "report.html")])
    assert texts[0] == texts[1]


def test_colours_and_fonts_of_the_drawings_are_those_of_the_page(hostile):
    drawings = "".join(re.findall(r"<svg.*?</svg>", hostile, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()
    assert "var(--success)" in drawings
    assert "font-family" not in drawings


def test_videos_beside_the_report_are_linked_with_their_last_frame(store):
    directory = store(*FOUR)
    film(directory / "videos" / "seed_2_timeout.mp4", last=(220, 10, 10))
    (directory / "videos" / "seed_0_success.mp4").write_bytes(b"not a film")
    write_report(directory)
    parsed = Page((directory / "report.html").read_text())
    assert parsed.links.count("videos/seed_2_timeout.mp4") == 2  # picture and table
    assert parsed.links.count("videos/seed_0_success.mp4") == 2
    assert "no preview" in parsed.text
    pictures = [url for url in parsed.loads if url.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 1
    assert _middle(pictures[0])[0] > 180


def _middle(picture: str) -> tuple[int, int, int]:
    return Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).getpixel((32, 32))


def test_the_result_as_json_names_both_reports(store, capsys):
    directory = store(*FOUR)
    show_result(directory, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(directory / "report.md")
    assert result["html"] == str(directory / "report.html")
    assert result["success_once"]["text"] == "2/4 = 50% [15%, 85%]"
    assert (result["stopped_after"], result["anytime_interval_95"]) == (None, None)


def test_a_suite_has_a_row_per_run_and_the_mean_of_their_rates(store, tmp_path):
    runs = [store(*FOUR, into="a"), store(*(episode(i, "success", at_end=True) for i in range(4)), into="b")]
    write_suite_report(tmp_path, runs)
    text = (tmp_path / "suite.md").read_text()
    assert text.startswith(
        "# Mean of 2 task rates: 75%; as every task has the same number of episodes it is 6/8 = 75% [41%, 93%], "
        "true of these tasks alone."
    )
    assert (
        "| PushCube-v1 | 2/4 = 50% [15%, 85%] | 1/4 = 25% [5%, 70%] (success_at_end (10 steps after success)) |" in text
    )
    assert "[report](b/report.html)" in text
    parsed = Page((tmp_path / "suite.html").read_text())
    assert (parsed.open, parsed.misnested, parsed.links) == ([], [], ["a/report.html", "b/report.html"])
    assert "4/4 = 100% [51%, 100%]" in parsed.text


def test_tasks_of_different_length_are_not_pooled(store, tmp_path):
    runs = [store(*FOUR, into="a"), store(*FOUR[:1], into="b", episodes=1), store(into="c")]
    total = suite_json(runs)["total"]
    assert total == {
        "mean_of_task_rates": 0.75,
        "measured_tasks": 2,
        "tasks": 3,
        "pooled": None,
        "text": "Mean of 2 task rates: 75% (1 of 3 have no episode with a verdict and are left out). "
        "No interval: the numbers of episodes differ or were not fixed in advance.",
    }


def test_the_remarks_of_a_suite_hide_no_error(store, tmp_path):
    runs = [store(*FOUR[:3], episode(3, "error", error="gone"), into="a")]
    write_suite_report(tmp_path / "new", runs)
    assert "1 of 4 episodes ended in an error" in (tmp_path / "new" / "suite.md").read_text()
    assert "1 of 4 episodes ended in an error" in (tmp_path / "new" / "suite.html").read_text()


def test_tasks_that_were_to_stop_when_sure_are_not_pooled(store):
    runs = [store(*FOUR, into=name, stop_when_sure=0.1) for name in ("a", "b")]
    assert suite_json(runs)["total"]["pooled"] is None
