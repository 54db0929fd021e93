"""Files of corpora are read as the text that they hold, or refused with file, place and remedy."""

import gzip
import io
import json
import re
import string
import struct

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.files.hub import FORMATS, SourceError, matching_files
from lfp.settings import Clean
from lfp.texts.cleaning import cleaned, without_html
from lfp.texts.corpora import dropped_in_words, preference_pairs
from lfp.texts.readers import READERS, CorpusError, read_file, read_splits
from lfp.texts.words import WORD, count_words, word_form

TEXT = {"text": "text"}
#: Texts that a reader may take for something else.
AS_WRITTEN = ["007", "NA", "null", "1e5", "True", "4", "", "a,b", 'so "good"', "café", "2024-01-02"]


def parquet(column: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": column}), buffer)
    return buffer.getvalue()


def arrow(column: pa.Array) -> bytes:
    buffer, table = io.BytesIO(), pa.table({"text": column})
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def written(texts: list[str], ending: str) -> bytes:
    """A file of `texts` in the format of an ending."""
    rows = [{"label": 0, "text": text} for text in texts]
    if ending in (".parquet", ".arrow"):
        return (parquet if ending == ".parquet" else arrow)(pa.array(texts))
    if ending.startswith(".jsonl"):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif ending.startswith(".json"):
        data = json.dumps(rows, indent=1).encode()
    else:
        data = pd.DataFrame(rows).to_csv(index=False).encode()
    return gzip.compress(data) if ending.endswith(".gz") else data


@pytest.mark.parametrize("ending", READERS)
def test_text_is_text_in_every_format(tmp_path, ending):
    path = tmp_path / f"corpus{ending}"
    path.write_bytes(written(AS_WRITTEN, ending))
    assert list(read_file(path, TEXT)["text"]) == AS_WRITTEN


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_text(tmp_path):
    for name, text in (
        ("a.jsonl", '{"text": "one\\r\\ntwo"}\r\n\r\n{"text": null}\r\n'),
        ("a.csv", 'text\r\n"one\r\ntwo"\r\n'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_file(tmp_path / name, TEXT)["text"][0] == "one\ntwo"
    # A missing text is empty, and is counted so.
    assert read_file(tmp_path / "a.jsonl", TEXT)["text"].isna().tolist() == [False, True]


def test_dictionaries_of_strings_and_bytes_of_utf8_are_text(tmp_path):
    path, texts = tmp_path / "a.parquet", ["é", "b", None, "é"]
    for column in (
        pa.array(texts).dictionary_encode(),
        pa.array(texts, pa.large_string()),
        pa.array([text and text.encode() for text in texts]),
    ):
        path.write_bytes(parquet(column))
        assert [t if isinstance(t, str) else None for t in read_file(path, TEXT)["text"]] == texts


GOOD = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", GOOD + b'{"text": 4}', r"line 2: column 'text' holds 4 \(a number\)"),
        ("a.jsonl", GOOD * 2 + b'{"text": true}', "line 3: .*true or false.*write it in quotes"),
        ("a.jsonl", b'{"text": ["a"]}', "line 1: .*a list"),
        ("a.jsonl", b'{"text": {"a": 1}}', "line 1: .*an object"),
        ("a.jsonl", GOOD + b'{"text": "a"\n' + GOOD, "line 2 is not JSON .*correct the line"),
        ("a.jsonl", GOOD + b'"a"', "line 2 is text or null, expected an object"),
        ("a.jsonl", b'[{"text": "a"}]', "line 1 is a list.*must have the ending .json"),
        ("a.jsonl", GOOD + '{"text": "é"}'.encode("latin-1"), "line 2 is not UTF-8 .*Latin-1"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', "line 1 .*the key 'text' twice"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: .*half a surrogate pair"),
        ("a.jsonl", b'{"text": "a\\u0000"}', "line 1: .*NUL"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "line 1 .*correct the line"),
        ("a.jsonl", GOOD.decode().encode("utf-16"), "begins as UTF-16: convert"),
        ("a.jsonl", gzip.compress(GOOD, mtime=0), "begins as a gzip file: give it the ending .gz"),
        ("a.jsonl.gz", GOOD, "not a whole gzip file .*take the ending .gz off"),
        ("a.jsonl.gz", gzip.compress(GOOD * 99, mtime=0)[:-9], "not a whole gzip file"),
        ("a.json", b'[{"text": "a"},\n {"text": 5}]', "row 2 of the array: .*a number"),
        ("a.json", b'[{"text": "a"},\n {"text": ]', "line 2 is not JSON"),
        ("a.csv", "text\ncafé\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("a.csv", b'text,n\na,1\n"b,2\nc,3\n', "the row at line 3 is not CSV .*close its quotes"),
        ("a.csv", b"text,n\na,1\nb, c,2\n", "the row at line 3 has 3 values, and the header .* 2"),
        ("a.csv", b"text,n\na\n", "the row at line 2 has 1 values"),
        ("a.csv", b"text,text\na,b\n", "line 1: two columns 'text'"),
        ("a.csv", b"", "empty, expected a line with the names of columns"),
        ("a.csv", b"review\na\n", "no column 'text'; it has review. Set the corpus's `columns`"),
        ("a.csv", b'n;"text"\n1;a\n', "values are parted by semicolons, expected commas"),
        ("a.csv", b"n\ttext, with commas\ttext\n", "values are parted by tabs"),
        ("a.csv", "text\na\n".encode("utf-16-le"), "begins with .* NUL.*iconv -f UTF-16LE"),
        ("a.json", b'{\n"data": [{"text": "a"}]}', "line 1 is not JSON.*one array of objects"),
        ("a.json", b'["a"]', "row 1 of the array is text.*write every text as such an object"),
        ("a.parquet", GOOD, "not a whole Parquet file .*correct its ending"),
        ("a.parquet", b"", "not a whole Parquet file"),
        ("a.arrow", arrow(pa.array(["a"]))[:40], "not a whole Arrow file .*correct its ending"),
        ("a.arrow", arrow(pa.array([4, 5])), "column 'text' is of type int64, expected str"),
        ("a.parquet", parquet(pa.array([4, 5])), "column 'text' is of type int64, expected str"),
        ("a.parquet", parquet(pa.array([True])), ".*of type bool"),
        ("a.parquet", parquet(pa.array([["a"]])), ".*of type list"),
        ("a.parquet", parquet(pa.array([b"a", b"\xe9"])), "row 2: column 'text' is not UTF-8"),
        ("a.parquet.gz", b"", r"unknown format; expected \.jsonl"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_text_is_refused_with_its_place_and_a_remedy(
    tmp_path, name, data, message
):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=f"^{re.escape(str(path))}: {message}"):
        read_file(path, TEXT)


def test_blank_lines_of_a_table_are_no_rows(tmp_path):
    """Also in front of the header, where some exports have one."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"\r\n\ntext,n\n\na,1\n\n")
    assert list(read_file(path, TEXT)["text"]) == ["a"]


@pytest.mark.parametrize("name", ["folder.jsonl", "folder.csv", "folder.parquet", "absent.json"])
def test_a_folder_and_a_file_that_is_gone_are_named(tmp_path, name):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(CorpusError, match=f"{name}: "):
        read_file(tmp_path / name, TEXT)


# ----------------------------------------------------------------------------------- any bytes


def text_or_message(path, data: bytes) -> None:
    """Read `data` under the name `path`: texts, or a message with the file, and nothing else."""
    path.write_bytes(data)
    try:
        frame = read_file(path, TEXT)
    except CorpusError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(text, str) for text in frame["text"].dropna())
        frame["text"].str.encode("utf-8")


@pytest.mark.parametrize("ending", READERS)
def test_any_bytes_are_rows_or_a_message_with_the_file(tmp_path, ending):
    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
    def check(data: bytes) -> None:
        text_or_message(tmp_path / f"corpus{ending}", data)

    check()


@pytest.mark.parametrize("ending", READERS)
def test_a_damaged_file_is_rows_or_a_message_with_the_file(tmp_path, ending):
    """Bytes of a whole file are cut out, flipped, and put in."""
    whole = written(AS_WRITTEN, ending)
    edit = st.tuples(
        st.integers(0, len(whole)), st.integers(0, 12), st.binary(max_size=6) | st.just(b'"')
    )

    @settings(max_examples=120, derandomize=True, deadline=None)
    @given(st.lists(edit, min_size=1, max_size=3))
    def check(edits: list[tuple[int, int, bytes]]) -> None:
        data = whole
        for start, cut, put in edits:
            data = data[:start] + put + data[start + cut :]
        text_or_message(tmp_path / f"corpus{ending}", data)

    check()


def test_a_text_that_lies_behind_the_end_of_its_file_is_refused(tmp_path):
    """It would be read from memory of something else, or end the process."""
    path, data = tmp_path / "corpus.arrow", arrow(pa.array(["one.", "two."]))
    places = struct.pack("<3i", 0, 4, 8)
    assert data.count(places) == 1
    path.write_bytes(data.replace(places, struct.pack("<3i", 0, 2**30, 8)))
    with pytest.raises(CorpusError, match="corpus.arrow: not a whole Arrow file"):
        read_file(path, TEXT)


@pytest.mark.parametrize("ending", READERS)
def test_any_texts_come_back_as_they_were_written(tmp_path, ending):
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")

    @settings(max_examples=40, derandomize=True, deadline=None)
    @given(st.lists(st.text(characters, max_size=12), min_size=1, max_size=5))
    def check(texts: list[str]) -> None:
        path = tmp_path / f"corpus{ending}"
        path.write_bytes(written(texts, ending))
        assert list(read_file(path, TEXT)["text"]) == texts

    check()


# --------------------------------------------------------------------------------- names of files


def test_a_name_that_exists_is_itself_and_no_pattern(tmp_path):
    for name in ("data [v1]/train.jsonl", "data [v1]/test.jsonl", "what?.csv", "whats.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    def names(pattern: str) -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in matching_files(tmp_path, pattern, "corpora")]

    assert names("data [v1]/train.jsonl") == ["data [v1]/train.jsonl"]
    assert names("data [v1]/*.jsonl") == ["data [v1]/test.jsonl", "data [v1]/train.jsonl"]
    assert names("what?.csv") == ["what?.csv"]
    assert names("what*.csv") == ["what?.csv", "whats.csv"]
    assert names(str(tmp_path / "data [v1]" / "test.jsonl")) == ["data [v1]/test.jsonl"]


def test_a_file_that_no_reader_knows_is_refused_before_it_is_read(tmp_path):
    assert tuple(READERS) == FORMATS
    for name in ("a.jsonl", "b.tsv", "c.parquet.gz"):
        (tmp_path / name).touch()
    for pattern, name in (("b.tsv", "b.tsv"), ("*", "b.tsv"), ("c*", "c.parquet.gz")):
        with pytest.raises(SourceError, match=f"^x: .*{name} is of an unknown format, expected"):
            matching_files(tmp_path, pattern, "x")


def test_the_hint_has_near_names_and_nothing_hidden(tmp_path):
    for name in (".git/train.jsonl", ".train.jsonl", "data/train.jsonl", "data/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert matching_files(tmp_path, "**/*.jsonl", "x") == [tmp_path / "data" / "train.jsonl"]
    with pytest.raises(SourceError, match=r"^x: no file matches 'trian.jsonl'; ") as caught:
        matching_files(tmp_path, "trian.jsonl", "x")
    assert "data/train.jsonl" in str(caught.value)
    assert ".git" not in str(caught.value)
    assert "notes" not in str(caught.value)
    for pattern in ("~/train.jsonl", "", "data", "a\0b", "**x", "[", "x" * 5000, "/absent/*"):
        with pytest.raises(SourceError, match="^x: no file matches"):
            matching_files(tmp_path, pattern, "x")


# --------------------------------------------------------------------------------- pairs by reason

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def test_rows_without_a_pair_are_counted_by_their_reason(tmp_path):
    q = f"{HUMAN} q{ASSISTANT}"
    rows = [
        (f"{q} yes", f"{q} no"),
        (f"{q} yes", f"{HUMAN} other{ASSISTANT} no"),
        (f"{q} yes ", f"{q}  yes\n"),
        (f"{q} yes", q),
        (f"{q} yes", None),
        ("yes", "no"),
        ("yes", "never"),
    ]
    frame = pd.DataFrame(rows, columns=["chosen", "rejected"])
    pairs, dropped = preference_pairs(frame)
    assert pairs.index.tolist() == [0]
    reasons = ["empty_answer", "no_assistant_turn", "equal_answers", "no_common_prompt"]
    assert [dropped[reason] for reason in reasons] == [2, 2, 1, 1]
    path = tmp_path / "pairs.jsonl"
    frame.drop(index=4).to_json(path, orient="records", lines=True)
    columns = {"chosen": "chosen", "rejected": "rejected"}
    _, counts = read_splits({"train": [path], "test": [path]}, columns, 0.1, 0)
    assert counts["train"]["no_assistant_turn"] == 2
    assert counts["train"]["equal_answers"] == 1


def test_transcripts_with_line_ends_of_windows_give_their_pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    turns = f"{HUMAN} q {{}}{ASSISTANT} ".replace("\n", "\r\n")
    rows = [
        {"chosen": turns.format(i) + "yes", "rejected": turns.format(i) + "no"} for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frames, _ = read_splits({"train": [path]}, {name: name for name in rows[0]}, 0.4, 0)
    assert sum(len(preference_pairs(frame)[0]) for frame in frames.values()) == 9


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "yes", "rejected": "yes "}, "3 equal answers"),
        ({"chosen": f"q{ASSISTANT} x", "rejected": f"r{ASSISTANT} y"}, "3 no common prompt"),
    ],
)
def test_a_corpus_without_any_pair_says_the_reason(tmp_path, row, reason):
    path = tmp_path / "pairs.jsonl"
    rows = [{name: f"{i}{text}" for name, text in row.items()} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CorpusError, match=f"pairs.jsonl: none of 3 rows .*{reason}"):
        read_splits({"train": [path], "test": [path]}, {name: name for name in row}, 0.1, 0)


def test_reasons_are_told_with_the_most_frequent_one_first():
    assert dropped_in_words({"a_b": 1, "c": 3, "d": 0}) == "3 c, 1 a b"
    assert dropped_in_words({"a_b": 0}) == "none"


# ------------------------------------------------------------------------------------- cleaning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loved.<br /><br />It was", "loved.\n\nIt was"),
        ("it's 5 &amp; 6, &quot;ok&quot; &#39;x&#39;", "it's 5 & 6, \"ok\" 'x'"),
        ("<p>one</p><p>two</p>", "one\ntwo"),
        ("<i>so</i> <B>good</B>", "so good"),
        ("a</p>b<td>c</td>d", "a\nb\nc\nd"),
        ("<a href='x>y'>link</a> <!-- note -->end", "link end"),
        ("&lt;b&gt; is a tag", "<b> is a tag"),
        ("a<br / >b<hr noshade>c<td nowrap width=3>d</td>e", "a\nb\nc\nd\ne"),
        ("<title>T</title>a<iframe src='x'></iframe>b", "T\na\nb"),
        ("a&#13;&#10;b&#xD;c", "a\nb\nc"),
        *[(text, text) for text in (
            "I <3 it", "a < b and c > d", "if a <b and c> d", "<sarcasm>sure</sarcasm>", "10 <br",
            "AT&T, R&D; &unknown;", "a?x=1&lt=2", "open <script> and <!-- it", "\n\nHuman: hi <",
        )],
    ],
)  # fmt: skip
def test_markup_is_taken_out_and_no_word_is_lost(text, expected):
    assert without_html(text) == expected


def test_no_word_outside_of_tags_is_lost():
    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from(["<", ">", "<3", "</", "&", ";", '"', "<!-", "!", *"abi"])))
    def check(parts: list[str]) -> None:
        words = [f"w{i}" for i in range(len(parts) + 1)]
        text = words[0] + "".join(p + f" {w}" for p, w in zip(parts, words[1:], strict=True))
        assert re.findall(r"w\d+", without_html(text)) == words

    check()


def test_nothing_is_cleaned_that_is_not_asked_for_and_changes_are_counted(tmp_path):
    frame = pd.DataFrame({"text": ["Cafe\u0301<br />", "plain", None]}, dtype="str")
    same, changed = cleaned(frame, Clean())
    assert same is frame
    assert changed == 0
    result, changed = cleaned(frame, Clean(html=True, unicode="nfc", lowercase=True))
    assert result["text"].tolist()[:2] == ["café\n", "plain"]
    assert changed == 1
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a<br />"}\n{"text": "a<br>"}\n{"text": "b"}\n')
    frames, counts = read_splits({"train": [path], "test": [path]}, TEXT, 0.1, 0, Clean(html=True))
    assert sorted(frames["train"]["text"]) == ["a\n", "b"]  # equal rows are looked for behind it
    assert counts["train"]["cleaned"] == 2
    assert counts["train"]["duplicates"] == 1
    # Rows that are held out count where they are.
    path.write_text("".join(f'{{"text": "{i}<br>"}}\n' for i in range(20)))
    _, counts = read_splits({"train": [path]}, TEXT, 0.25, 0, Clean(html=True))
    assert [counts[split]["cleaned"] for split in ("train", "test")] == [15, 5]


# ----------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café, naïve!", ["café", "naïve"]),
        ("Я люблю — любовь", ["я", "люблю", "любовь"]),
        ("don't don’t ‘good’ 'tis", ["don't", "don’t", "good", "tis"]),
        ("cafe\u0301 good", ["cafe\u0301", "good"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("x2y well-made 日本語", ["x", "y", "well-made", "日本語"]),
    ],
)
def test_words_are_words_of_any_script(text, words):
    assert count_words(text) == words


def test_words_of_ascii_are_those_of_the_first_release():
    old = re.compile(r"[A-Za-z][A-Za-z'-]*")

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text(string.printable, max_size=60))
    def check(text: str) -> None:
        assert [m.span() for m in WORD.finditer(text)] == [m.span() for m in old.finditer(text)]

    check()
    assert word_form("naïvely") == "adverb"
    assert word_form("Kindness") is word_form("ing") is word_form("well-ed") is None


def test_a_word_has_the_tokens_that_spell_it_behind_other_scripts(tokenizer):
    from lfp.models.tokens import word_mask

    text = "любовь café naïve good"
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    for match in WORD.finditer(text):
        tokens = word_mask(encoded["offset_mapping"], match.start(), match.end())
        ids = [encoded["input_ids"][i] for i in tokens]
        assert tokenizer.decode(ids).strip() == match.group()


def test_a_literal_name_is_fetched_from_the_hub(monkeypatch, tmp_path):
    """The client takes its patterns as globs, and so would it a name with brackets."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    from lfp.files.hub import snapshot

    names = ["data [v1]/train.jsonl", "data v/train.jsonl", "data/test.jsonl"]

    def download(repo: str, allow_patterns: list[str], **options: object) -> str:
        return ",".join(filter_repo_objects(names, allow_patterns=allow_patterns))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetched = snapshot("org/x", "0" * 40, ["data [v1]/train.jsonl", "data/*.jsonl"], "dataset")
    assert set(str(fetched).split(",")) == {*names[::2], names[1]}
