"""What looks like a secret is taken out, and what does not stays."""

from __future__ import annotations

import pytest

from relume.provenance.secrets import REDACTED, Redactor, is_secret_file, is_secret_name, without_credentials

HEX = "0123456789abcdef0123456789abcdef01234567"
TOKENS = {
    "Hugging Face": "hf_abcDEFghiJKLmnoPQRstu",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ456789",
    "GitHub, fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "GitLab": "glpat-abcdefghij0123456789",
    "OpenAI": "sk-proj-abcdefghijklmnop0123456789",
    "Anthropic": "sk-ant-api03-abcdefghijklmnop-0123456789",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Slack": "xoxb-123456789012-abcdefghijkl",
    "Google": "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "W&B": "wandb_v1_abcdefghijklmnop0123456789ABCDEF",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("around", ["{}", "x = '{}'\n", "+{}\n", "login({})", "url?a={}&b=1", "päß {} ☃"])
def test_known_tokens_go_wherever_they_stand(token: str, around: str) -> None:
    assert Redactor().text(around.format(token)) == around.format(REDACTED)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "hunter2"', "hunter2"),
        ("DB_PASSWORD=hunter", "hunter"),
        ("export WANDB_API_KEY=" + HEX, HEX),
        (f'wandb.login(key="{HEX}")', HEX),
        (f'wandb.login("{HEX}")', HEX),
        ('{"api_key": "abc"}', "abc"),
        ("def f(password: str = 'abc123'): pass", "abc123"),
        ('os.environ["API_KEY"] = "zzz"', "zzz"),
        ('+    client_secret="a-b-c"', "a-b-c"),
        ("password=\n    'on the next line 7'", "on the next line 7"),
        ("machine h\n  login u\n  password s3cr", "s3cr"),
        ("machine h login u password tiger", "tiger"),
        ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
        ("https://me:pass@example.org/x", "me:pass"),
        ("https://me:pa/ss@example.org/x", "pa/ss"),
        ("https://sometoken@example.org/x", "sometoken"),
        ("postgresql://u:p@db:5432/x", "u:p"),
        ("https://x/y?X-Amz-Signature=abcdef&b=1", "abcdef"),
        ("python t.py --api-key XYZW1 --lr 0.1", "XYZW1"),
        ("key = 'q8Zt3LmXv91kPa0Wd7Rs'", "q8Zt3LmXv91kPa0Wd7Rs"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef\n-----END OPENSSH PRIVATE KEY-----\nrest", "def"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\ncut short", "abc"),
    ],
)
def test_values_go_where_a_name_says_that_they_are_secret(text: str, secret: str) -> None:
    clean = Redactor().text(text)
    assert secret not in clean and REDACTED in clean
    assert clean.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        "token = '[MASK]'", "pad_token='<pad>'", "tokenizer = 'bert-base-uncased'", "max_tokens = 512", f"commit {HEX}",
        "getpass('Password: ') or os.environ['X']", "f(token=args.token, key=self.key)", "password = getpass.getpass()",
        "for key, value in x: sorted(y, key=lambda x: x)", "ssh://git@example.org/a.git git@example.org:a/b.git",
        "token_type_ids: torch.Tensor = x1", "secret_key = os.environ['A']", "task-abcdefghijklmnopqrstuv", "password: str",
        "http://localhost:8080/path@2x.png", "api_key = settings.key2", "author = 'A. Person'", "keys = ['a', 'b']",
        "password = ''", "monkey = 'resnet50_imagenet_v2'", "key: 'layer1.0.conv2.weight'", "lr=0.1, seed=12345678901234567890",
    ],
)  # fmt: skip
def test_ordinary_code_stays_as_it_is(text: str) -> None:
    redactor = Redactor()
    assert redactor.text(text) == text and redactor.count == 0


def test_the_library_itself_stays_as_it_is() -> None:
    from pathlib import Path

    import relume

    redactor = Redactor()
    for path in sorted(Path(relume.__file__).parent.rglob("*.py")):
        if path.name not in ("secrets.py", "rebuilding.py"):  # their examples show some
            assert redactor.text(path.read_text()) == path.read_text(), path


def test_settings_have_no_types_so_that_a_bare_word_is_a_secret() -> None:
    assert Redactor().text("password: hunter\nlr: 0.1\n", is_settings=True) == f"password: {REDACTED}\nlr: 0.1\n"
    assert Redactor().text("password: null\n", is_settings=True) == "password: null\n"


def test_arguments_lose_their_secrets_and_the_values_are_known_from_then_on() -> None:
    redactor = Redactor(
        ["t.py", "--hf-token", "swordfish1", "--password=tiger-lily"], {"SOME_API_KEY": "from-environment"}
    )
    given = [
        "t.py",
        "--hf-token",
        "swordfish1",
        "--password=tiger-lily",
        "model.token=abc",
        "--lr=0.1",
        "--pad-token",
        "<pad>",
    ]
    expected = ["t.py", "--hf-token", REDACTED, f"--password={REDACTED}", f"model.token={REDACTED}", *given[5:]]
    assert redactor.arguments(given) == expected
    assert redactor.text("a swordfish1 b tiger-lily c from-environment") == f"a {REDACTED} b {REDACTED} c {REDACTED}"
    assert redactor.arguments(["--token"]) == ["--token"]
    assert redactor.arguments(["--token", "--lr", "1"]) == ["--token", "--lr", "1"]


def test_config_is_looked_through_however_nested_it_is() -> None:
    config = {
        "lr": 0.1, "seed": 12, "password": 123, "token": "abc", "deep": [{"api_key": "x", "dropout": 0.5}],
        "secrets": {"a": "b"}, "max_tokens": 5, "pad_token": "<pad>", "key": "label", "wandb_key": HEX, "proxy": "http://u:p@h/",
        "none_password": None, "use_auth_token": True, "cmd": ["--token", "zz", "--lr", "1"],
    }  # fmt: skip
    clean = Redactor().config(config)
    assert clean == config | {
        "password": REDACTED, "token": REDACTED, "deep": [{"api_key": REDACTED, "dropout": 0.5}], "secrets": {"a": REDACTED},
        "wandb_key": REDACTED, "proxy": f"http://{REDACTED}@h/", "cmd": ["--token", REDACTED, "--lr", "1"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["hf_token", "apiKey", "db.password", "AWS_SECRET_ACCESS_KEY", "--auth-token", "Credentials"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["", "pad_token", "tokens", "key", "monkey", "password_length", "secret_file", "lr", "--"]
)
def test_names_that_are_none(name: str) -> None:
    assert not is_secret_name(name)


def test_files_of_secrets_are_known_by_their_names() -> None:
    secret = [
        ".env",
        "a/.env.local",
        "prod.env",
        ".netrc",
        "id_rsa",
        "x/server.pem",
        "credentials.json",
        ".ssh/config",
        "kaggle.json",
    ]
    assert all(map(is_secret_file, secret))
    assert not any(
        map(is_secret_file, [".env.example", "environment.py", "train.py", "tokenizer.json", "keys.py", "model.pt"])
    )


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:tok@example.org/a.git", "https://example.org/a.git"),
        ("https://tok@example.org:8443/a@b", "https://example.org:8443/a@b"),
        ("https://me:a/b@example.org/c", "https://example.org/c"),
        ("ssh://git@example.org/a", "ssh://git@example.org/a"),
        ("ssh://git:pw@example.org/a", "ssh://git@example.org/a"),
        ("git@example.org:a.git", "git@example.org:a.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
    ],
)
def test_addresses_lose_their_credentials_and_can_still_be_used(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


def test_hostile_texts_do_not_keep_it_busy() -> None:
    for text in (
        "password=" * 20_000,
        "a" * 300_000,
        "key:" + " " * 100_000,
        "token='" * 20_000,
        "://" * 50_000,
        "@" * 100_000 + "://a:",
    ):
        assert Redactor().text(f"{text}\nhf_abcDEFghiJKLmnoPQRstu").endswith(REDACTED)


@pytest.mark.parametrize(
    "text",
    [
        'os.environ.setdefault("API_KEY", "s3cr3tvalue")',
        'os.getenv("DB_PASSWORD", "s3cr3tvalue")',
        'parser.add_argument("--api-key", default="s3cr3tvalue")',
        "parser.add_argument('--password', type=str, default='s3cr3tvalue')",
    ],
)
def test_values_that_stand_behind_a_name_in_a_call_go(text: str) -> None:
    assert Redactor().text(text) == text.replace("s3cr3tvalue", REDACTED)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("me:canary@example.org:a.git", "me@example.org:a.git"),
        ("https://example.org/a.git#canary", "https://example.org/a.git"),
        ("ext::sh -c canary", f"ext::{REDACTED}"),
    ],
)
def test_odd_addresses_lose_their_credentials(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


def test_all_below_secrets_in_settings_goes() -> None:
    config = {
        "secrets": {"a": "canary", "b": {"c": "canary"}},
        "credentials": {"d": ["canary"]},
        "env": ["DB_PASS=canary1"],
    }
    assert "canary" not in str(Redactor().config(config))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("curl -u me:tiger https://example.org/data", "tiger"),
        ("subprocess.run('curl --user me:tiger https://x', shell=True)", "tiger"),
        ("wget --user me:tiger https://x", "tiger"),
        ("sshpass -p tiger ssh me@host", "tiger"),
        ("docker login -u me -p tiger registry.example.org", "tiger"),
        ('requests.get(url, auth=("me", "tiger"))', "tiger"),
        ("HTTPBasicAuth('me', 'tiger')", "tiger"),
        ('server.login("me@example.org", "tiger")', "tiger"),
        ('{"name": "HF_TOKEN", "value": "tiger4x"}', "tiger4x"),
        ("env:\n  - name: HF_TOKEN\n    value: tiger4x\n", "tiger4x"),
        ("https://hooks.slack.com/services/T0/B0/abcdefgh12345678", "abcdefgh12345678"),
        ("https://discord.com/api/webhooks/123456/abcdefgh12345678", "abcdefgh12345678"),
        ("https://api.telegram.org/bot12345:abcdefgh12345678/sendMessage", "abcdefgh12345678"),
    ],
)
def test_places_that_hold_nothing_but_secrets(text: str, secret: str) -> None:
    clean = Redactor().text(text)
    assert secret not in clean and REDACTED in clean
    assert clean.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        "curl -u $USER:$PASSWORD https://x", "auth = (user, password)", 'fit(auth=("a", "$b"))', "sshpass -e ssh host",
        '"token": "InputTokenSpec"', "https://USER:PASSWORD@host/x", '{"name": "dropout", "value": "0.5"}', "- name: lr\n  value: 0.001\n", "mkdir -p runs/login", "model.login(user, name)",
    ],
)  # fmt: skip
def test_places_without_a_secret_stay(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_setting_of_a_name_and_a_value_is_looked_through() -> None:
    config = {"env": [{"name": "HF_TOKEN", "value": "tiger4x"}, {"name": "lr", "value": "0.1"}]}
    assert Redactor().config(config) == {
        "env": [{"name": "HF_TOKEN", "value": REDACTED}, {"name": "lr", "value": "0.1"}]
    }
