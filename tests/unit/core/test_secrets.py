"""Nothing that looks like a secret is shown or kept, whatever form it has."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgolf_sweep.core.secrets import is_secret_name, masked_url, redacted, secret_values

PASSWORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'<>"),
    min_size=8,
    max_size=30,
).filter(lambda text: not text.isalnum())

FORMS = [
    "postgresql://me:{}@db.example:5432/sweeps",
    "postgresql+psycopg://me:{}@[::1]:5432/sweeps?sslmode=require",
    "postgresql+psycopg2://me:{}@/sweeps?host=/var/run/postgresql",
    "postgresql://db.example/sweeps?user=me&password={}",
    "postgresql://db.example/sweeps?user=me&pass%77ord={}&sslmode=require",
    "mysql+pymysql://me:{}@db/x?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{}",
    "redis://:{}@cache:6379/0",
    "rediss://me:{}@cache",
]


@pytest.mark.parametrize("form", FORMS)
@given(password=PASSWORD)
def test_password_is_left_out_of_every_form_of_url(form: str, password: str) -> None:
    encoded = quote(password, safe="")
    assert encoded not in masked_url(form.format(encoded))
    if "?" not in form.partition("{}")[0]:
        # Raw, it may hold slashes, at signs, hashes and question marks.
        shown = masked_url(form.format(password))
        assert password not in shown
        assert shown.partition("://")[0] == form.partition("://")[0]


@pytest.mark.parametrize("password", ["p@ss/w#rd", "a:b@c@d", "x?y@z", "ends@", "100%", "##@//"])
def test_no_part_of_a_raw_password_is_left(password: str) -> None:
    shown = masked_url(f"postgresql://me:{password}@db.example/sweeps")
    assert shown == "postgresql://me@db.example/sweeps"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@db.example/sweeps?sslmode=require&options=-csearch_path%3Dmine",
        "postgresql:///sweeps?host=/run/postgresql",
        "sqlite:////home/me@work:2/study.db",
        "not a url: at all",
    ],
)
def test_url_without_a_password_stays_as_it_is(url: str) -> None:
    assert masked_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "OPENAI_API_KEY=sk-proj-abcdef0123456789abcdef",
        "export GITHUB_TOKEN='ghp_0123456789abcdefghijklmnopqrstuvwxyz'",
        "hf_AbCdEfGhIjKlMnOpQrStUv is not allowed",
        "Authorization: Bearer abc.DEF-123_456~xyz",
        '{"password": "correct-horse-battery"}',
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AKIAIOSFODNN7EXAMPLE",
        "--wandb-api-key=0123456789abcdef0123456789abcdef01234567",
        "could not connect to postgresql://me:hunter2hunter2@db/x",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_of_known_forms_are_redacted(text: str) -> None:
    shown = redacted(text)
    assert "***" in shown or "me@db" in shown
    secrets = "sk-proj ghp_ hf_A abc.DEF horse wJalr AKIA 0123456789abcdef0 hunter2 eyJ MIIE"
    assert not [secret for secret in secrets.split() if secret in shown]


@pytest.mark.parametrize(
    "text",
    [
        "train_batch_tokens:524288 train_seq_len:1024",
        "BOS_TOKEN=1 pad_token: 50257 bytes_per_token:2.4358 tok/s",
        "step:100/2000 train_loss:2.3456 train_time:10000ms step_avg:100.00ms",
        "tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model",
        "key: blocks.0.attn.q.weight shape: (512, 512)",
        "KeyError: 'final_model'",
        "token = tokenizer.encode(text)",
        "https://example.org/a?b=c#d",
        "commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_logs_say_of_tokens_and_keys_stays(text: str) -> None:
    assert redacted(text) == text


def test_known_values_are_redacted_wherever_they_stand() -> None:
    values = secret_values(
        {
            "WANDB_API_KEY": "a" * 40,
            "PGOLF_STORAGE": "postgresql://me:p%40ss-word@db/x",
            "PIN_TOKEN": "1",
        }
    )
    text = f"wandb: {'a' * 40}, p%40ss-word, p@ss-word, 1"
    assert redacted(text, values) == "wandb: ***, ***, ***, 1"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("WANDB_API_KEY", True), ("AWS_SECRET_ACCESS_KEY", True), ("AWS_ACCESS_KEY_ID", True),
        ("GITHUB_TOKEN", True), ("PGPASSWORD", True), ("PGOLF_STORAGE", True),
        ("DATABASE_URL", True), ("MY_PASSWORD", True), ("password", True),
        ("TRAIN_BATCH_TOKENS", False), ("BOS_TOKEN", False), ("MATRIX_LR", False),
        ("TOKENIZER_PATH", False), ("KEY_DIM", False), ("HF_HOME", False),
    ],
)  # fmt: skip
def test_names_of_secrets_are_told_from_those_of_knobs(name: str, *, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize("piece", ["_", "-", "token", "eyJ-", "a.", "password=", "x://", "BEGIN "])
def test_long_lines_are_read_in_a_time_that_grows_with_them(piece: str) -> None:
    # A pattern that backtracks takes hours for this, which the test's time limit ends.
    redacted(piece * (100_000 // len(piece)))
