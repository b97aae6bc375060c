"""What `check` says, to the letter: one row per thing that can be wrong."""

from __future__ import annotations

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError, Problem

BASE = """\
model_providers:
  - {model: openai/gpt-4o-mini, default: true}
  - {model: groq/llama}
affinity: {salt: 0123456789abcdef}
"""


def problems_of(text: str, environ: dict[str, str] | None = None) -> list[str]:
    try:
        problems: tuple[Problem, ...] = load_text(text, "f", environ or {}, lambda: b"").warnings
    except ConfigError as error:
        problems = error.problems
    return [str(problem).removeprefix("f:") for problem in problems]


def test_the_base_of_these_tests_is_sound() -> None:
    assert problems_of(BASE) == []


POLICY = "routing_preferences:\n  - name: code\n    description: about code\n"

APPENDED = [
    # names
    ("verison: v0.4.0", '5:1: unknown key "verison" — did you mean "version"?'),
    (
        "server: {hots: x}",
        '5:10: unknown key "hots" — known here: address, port, socket, socket_mode, tls, token, '
        "trust_network, workers, drain",
    ),
    (
        "prompt_guards: {}",
        '5:1: "prompt_guards" is a key of archgw or Plano that this server does not have'
        " — remove it: checking prompts is the work of another filter, before this one",
    ),
    (
        "routing: {session_ttl_seconds: 600}",
        '5:11: "session_ttl_seconds" is a key of archgw or Plano that this server does not have'
        " — remove it: a session's target is computed from its key, so nothing is stored",
    ),
    (
        "listeners: [{type: agent, name: a, agents: []}]",
        '5:20: "type" is not served here — remove this listener: only calls to models are',
        '5:36: "agents" is a key of archgw or Plano that this server does not have'
        " — remove it: this server routes calls to models, not to agents",
    ),
    (
        "version: 1",
        '5:10: "version" has an unknown value'
        " — write v0.1 or v0.1.0 or 0.1-beta or 0.2.0 or v0.2.0 or v0.3.0 or v0.4.0",
    ),
    # aliases
    (
        "model_aliases: {groq/llama: {target: gpt-4o-mini}}",
        '5:17: the alias "groq/llama" is also the name of a provider — rename the alias',
    ),
    (
        "model_aliases: {fast: {target: gpt-4o-mni}}",
        '5:32: there is no provider "gpt-4o-mni" — did you mean "gpt-4o-mini"?',
    ),
    (
        "model_aliases: {fast: {target: gpt-4o-mini}, faster: {target: fast}}",
        '5:63: there is no provider "fast" — an alias cannot stand here: write its target',
    ),
    (
        "model_aliases: {fast: {}}",
        '5:23: this alias has no "target" — write e.g. "target: openai/gpt-4o-mini"',
    ),
    ("model_aliases: {fast: x}", '5:23: "fast" must be a mapping — write "key: value" lines under it'),
    (
        'model_aliases: {"a\\nb": {target: gpt-4o-mini}}',
        '5:17: "a?b" travels in an HTTP header, so it must be plain ASCII on one line'
        " — write it in ASCII; a description may use any script",
    ),
    # policies
    (POLICY, '6:5: this policy names no model — write "models: [provider]", or "targets" with weights'),
    (
        POLICY + "    models: [llama, gpt-5]\n",
        '8:21: there is no provider "gpt-5" — known: openai/gpt-4o-mini, groq/llama',
    ),
    (
        POLICY + "    models: [llama, groq/llama]\n",
        '8:21: "groq/llama" is named twice here — keep one of them',
    ),
    (
        POLICY + "    models: [llama]\n    fallbacks: [gpt-4o-mini]\n",
        '9:5: "models" has its fallbacks in it — append these to models',
    ),
    (
        POLICY + "    targets: [{model: llama, weight: 1}]\n    fallbacks: [gpt-5, llama, llama]\n",
        '9:17: there is no provider "gpt-5" — known: openai/gpt-4o-mini, groq/llama',
        '9:31: "groq/llama" is named twice here — keep one of them',
    ),
    (
        POLICY
        + "    models: [llama]\n    failover: {statuses: [200, 6xx], attempts: 0, per_try_timeout: 1}\n",
        '9:27: "statuses" must be an error\'s status — write 400 to 599, or 5xx',
        '9:32: "statuses" must be an error\'s status — write 400 to 599, or 5xx',
        '9:48: "attempts" must be from 1 to 32 — write a number in that range',
        '9:68: "per_try_timeout" is not a duration — write a number and its unit (ms, s, m or h), e.g. 1s',
    ),
    (
        POLICY
        + "    targets: [{model: llama, weight: 1}, {model: gpt-4o-mini, weight: 1}]\n    split: nginx\n",
        '9:12: "split" has an unknown value — write ext_proc or envoy',
    ),
    (
        POLICY + "    models: [llama]\n    canary: {always: [a, 3], never: [b, a]}\n    sticky: forever\n",
        "9:14: this policy has no canary to get always — write a second target, or remove this",
        '9:26: "always" must be text, not a number — put it in quotes',
        '9:41: "a" is in "always" as well — keep one of them',
        '10:13: "sticky" has an unknown value — write session or user or request',
    ),
    (
        "routing: {failover: {ejection: {failures: 0, tme: 1s}}}",
        '5:43: "failures" must be from 1 to 10000 — write a number in that range',
        '5:46: unknown key "tme" — did you mean "time"?',
    ),
    (POLICY + "    models: []\n", '8:13: "models" is empty — write at least one entry'),
    (POLICY + "    models: llama\n", '8:13: "models" must be a list — begin each entry with "- "'),
    (POLICY + "    models: [llama, 3]\n", '8:21: "models" must be text, not a number — put it in quotes'),
    (POLICY + "    models: [llama, ]\n    model: x\n", '9:5: unknown key "model" — did you mean "models"?'),
    (
        POLICY + "    models:\n      - llama\n      -\n",
        '10:8: this entry is empty — write it out, or remove its "-"',
    ),
    (
        POLICY + "    models: [llama]\n    targets: [{model: llama, weight: 1}]\n",
        '9:5: "models" and "targets" exclude each other — keep targets to split, models to rank',
    ),
    (
        "routing_preferences: [{name: Other, description: x, models: [llama]}]",
        '5:30: "Other" is the routers\' word for no policy — give it another name',
    ),
    (
        "routing_preferences: [{name: a, description: x, domain: a, models: [llama]}]",
        '5:57: policy "a" is its own domain — remove domain: a policy without one covers a domain',
    ),
    (
        "routing_preferences:\n"
        "  - {name: a, description: x, models: [llama]}\n"
        "  - {name: a, description: y, models: [llama]}\n",
        '7:12: two policies are called "a" — merge them, or rename one: the first is in line 6',
    ),
    (
        "routing_preferences: [{name: é, description: x, models: [llama]}]",
        '5:30: "name" travels in an HTTP header, so it must be plain ASCII on one line'
        " — write it in ASCII; a description may use any script",
    ),
    (
        f"routing_preferences: [{{name: {'a' * 129}, description: x, models: [llama]}}]",
        '5:30: "name" must have 1 to 128 characters and no space at its ends — shorten it',
    ),
    (
        "routing_preferences: [{name: a, description: ' ', models: [llama]}]",
        '5:46: "description" must have 1 to 4000 characters — say in a sentence what the user wants',
    ),
    (
        "routing_preferences: [{description: x, models: [lama]}]",
        '5:23: this policy has no "name" — write e.g. "name: code review"',
        '5:49: there is no provider "lama" — did you mean "llama"?',
    ),
    (
        'routing_preferences: [{name: a, description: "x\\ny\\e", models: [llama], examples: ["a\\0"]}]',
        '5:46: "description" holds the control character U+001B — remove it',
        '5:84: "examples" holds the control character U+0000 — remove it',
    ),
    (
        'routing_preferences: [{name: "a\\e", description: x, models: [llama]}]',
        '5:30: "name" travels in an HTTP header, so it must be plain ASCII on one line'
        " — write it in ASCII; a description may use any script",
    ),
    # a mistyped key stands for the one that is missed
    (
        "routing_preferences: [{name: a, desciption: x, models: [llama]}]",
        '5:33: unknown key "desciption" — did you mean "description"?',
    ),
    (
        "routing_preferences: [{name: a, description: x, desciption: y, models: [llama]}]",
        '5:49: unknown key "desciption" — did you mean "description"?',
    ),
    (
        "routing_preferences: [{nam: a, description: x, modls: [llama]}]",
        '5:24: unknown key "nam" — did you mean "name"?',
        '5:48: unknown key "modls" — did you mean "models"?',
    ),
    (
        "model_aliases: {fast: {taget: llama}}",
        '5:24: unknown key "taget" — did you mean "target"?',
    ),
    (
        "routing_preferences: [{name: a, zzz: x, models: [llama]}]",
        '5:23: this policy has no "description" — write e.g. "description: reviewing existing code"',
        '5:33: unknown key "zzz" — known here: name, description, domain, examples, not_examples, '
        "models, targets, split, sticky, canary, fallbacks, failover, shadow, selection_policy, observe, "
        "rollout",
    ),
    # examples
    (
        POLICY + "    models: [llama]\n    examples: [fix it, 3]\n    not_examples: [fix it]\n",
        '9:24: "examples" must be text, not a number — put it in quotes',
        '10:20: this message is in "examples" as well — keep one of them',
    ),
    (
        POLICY + "    models: [llama]\n    examples: [fix it, fix it ]\n",
        "9:24: this message is here twice — keep one of them",
    ),
    (
        POLICY + f"    models: [llama]\n    examples: ['', {'a' * 2001}]\n    not_examples: x\n",
        '9:16: "examples" must have 1 to 2000 characters — write a message as a user would',
        '9:20: "examples" must have 1 to 2000 characters — keep the part that shows the task',
        '10:19: "not_examples" must be a list — begin each entry with "- "',
    ),
    (
        POLICY + f"    models: [llama]\n    not_examples: [{', '.join(map(str, 'ab' * 16))}, c]\n",
        '9:19: "not_examples" has too many entries — at most 32 are possible',
    ),
    # weights, shadows
    (
        POLICY + "    targets: [{model: llama, weight: 0}, {model: gpt-4o-mini, weight: 0}]\n",
        "8:14: every weight is zero — give at least one target a positive weight",
    ),
    (
        POLICY + "    targets: [{model: llama, weight: -1}, {model: gpt-4o-mini, weight: .inf}]\n",
        '8:38: "weight" must be from 0 to 1000000000 — write percent, e.g. 10 or 2.5',
        '8:72: "weight" must be a finite number — write e.g. 10 or 2.5',
    ),
    (
        POLICY + "    targets: [{model: lama, weight: true}]\n",
        '8:23: there is no provider "lama" — did you mean "llama"?',
        '8:37: "weight" must be a number, not true or false — write e.g. 10 or 2.5',
    ),
    (
        POLICY + "    targets: [{model: llama, weight: 99999}, {model: gpt-4o-mini, weight: 0.1}]\n",
        '8:75: the weight of "gpt-4o-mini" is less than 0.01 % of all — raise it, or write 0',
    ),
    (
        POLICY + "    models: [llama]\n"
        "    shadow: [{model: llama, percent: 0.125}, {model: gpt-4o-mini, percent: 101}]\n",
        '9:38: "percent" has more than two decimals — 0.01 is the smallest share',
        '9:76: "percent" must be from 0 to 100 — write percent, e.g. 20 or 0.5',
    ),
    (
        POLICY + "    models: [llama]\n"
        "    shadow: [{model: llama, percent: 60}, {model: gpt-4o-mini, percent: 41}]\n",
        "9:13: the shadows add up to more than 100 percent — a request has one shadow at most: lower them",
    ),
    (
        POLICY + "    models: [llama]\n    selection_policy: {prefer: cheapest}\n",
        '9:32: warning: "prefer: cheapest" has no effect: models are used in the order written'
        ' — write "prefer: none", or remove selection_policy',
    ),
    # routing
    (
        "routing: {router: {type: transformers}}",
        '5:19: the router "transformers" has no "model"'
        " — write a folder, or a hub id such as katanemo/Arch-Router-1.5B",
    ),
    (
        "routing: {router: {type: transformers, model: m, threshold: 0.5}, deadline: 300ms}",
        '5:50: "threshold" is no key of the router "transformers" — remove it, or choose embedded',
    ),
    (
        "routing: {router: {type: embedded, model: m}}",
        '5:36: "model" is no key of the router "embedded" — remove it, or choose transformers or openai',
    ),
    (
        "routing: {router: {type: openai, model: m}}",
        '5:19: the router "openai" has no "base_url" — write e.g. "base_url: http://vllm:8000/v1"',
    ),
    (
        "routing: {router: {type: openai, model: m, base_url: 'http://a', access_key: $UNSET}}",
        "5:78: the environment variable UNSET is not set — set it where the server runs",
    ),
    (
        "routing: {router: {type: transformers, model: m}}",
        "5:11: warning: a language model on a CPU takes longer than the usual deadline of 200ms"
        ' — write "deadline: 5s" and an envoy.message_timeout of 6s, or on a GPU the deadline that you mean',
    ),
    (
        "routing: {router: {type: transformers, model: m, device: gpu}, deadline: 300ms}",
        '5:58: "device" is not a device — write auto, cpu, cuda or cuda:0',
    ),
    ("routing: {router: embeded}", '5:19: "router" has an unknown value — did you mean "embedded"?'),
    (
        "routing: {router: {type: embedded, threshold: 2, max_waiting: 0}}",
        '5:47: "threshold" must be from 0 to 1 — write a probability, e.g. 0.3',
        '5:63: "max_waiting" must be from 1 to 10000 — write a number in that range',
    ),
    (
        "routing: {deadline: 200}",
        '5:21: "deadline" is not a duration — write a number and its unit (ms, s, m or h), e.g. 200ms',
    ),
    (
        "routing: {deadline: soon, cache: {ttl: 2.5}, shadow_router: {type: embedded, deadline: '2'}}",
        '5:21: "deadline" is not a duration — write a number and its unit (ms, s, m or h), e.g. 1ms',
        '5:40: "ttl" is not a duration — write a number and its unit (ms, s, m or h), e.g. 2.5s',
        '5:88: "deadline" is not a duration — write a number and its unit (ms, s, m or h), e.g. 2s',
    ),
    (
        "routing: {deadline: true, cache: {ttl: 1234567890}}",
        '5:21: "deadline" is not a duration — write a number and its unit (ms, s, m or h), e.g. 1ms',
        '5:40: "ttl" is not a duration — write a number and its unit (ms, s, m or h), e.g. 1s',
    ),
    (
        "routing: {confidence: {threshold: 1.5, margin: x}, cache: {size: -1, ttl: 0s}}",
        '5:35: "threshold" must be from 0 to 1 — write a probability, e.g. 0.3',
        '5:48: "margin" must be a number, not text — write e.g. 10 or 2.5',
        '5:66: "size" must be from 0 to 1000000 — write a number in that range',
        '5:75: "ttl" must be from 1s to 24h — write e.g. 1s',
    ),
    (
        "routing: {shadow_router: {type: embeded, percent: 200}, record: {redact: true}}",
        '5:33: "type" has an unknown value — did you mean "embedded"?',
        '5:51: "percent" must be from 0 to 100 — write percent, e.g. 20 or 0.5',
        '5:65: this mapping has no "path" — write e.g. "path: samples.jsonl"',
    ),
    ("routing: {on_failure: lama}", '5:23: there is no provider "lama" — did you mean "llama"?'),
    (
        "routing: {deadline: 481ms}",
        "5:21: the router's deadline of 481ms does not fit in Envoy's message timeout of 500ms"
        " — write a deadline of at most 480ms, or an envoy.message_timeout of at least 501ms",
    ),
    (
        "envoy: {message_timeout: 15ms}",
        "5:26: the router's deadline of 200ms does not fit in Envoy's message timeout of 15ms"
        " — write an envoy.message_timeout of at least 220ms",
    ),
    # ports and addresses
    ("server: {port: 65536}", '5:16: "port" must be from 0 to 65535 — write a number in that range'),
    (
        'server: {port: "80"}',
        '5:16: "port" must be a whole number, not text — write a number from 0 to 65535',
    ),
    (
        "server: {port: $PORT}",
        "5:16: the environment variable PORT is not set — set it, or write ${PORT:-default}",
    ),
    (
        'server: {port: "$0"}',
        '5:16: "port" has a dollar sign that begins no variable'
        " — write $VAR, ${VAR} or ${VAR:-default}; a dollar sign is $$",
    ),
    ("admin: {port: 50051}", '5:15: "server" and "admin" both listen on port 50051 — give one another port'),
    (
        "server: {workers: 4}\nadmin: {port: 50054}",
        '6:15: "server" and "admin" both listen on port 50054 — give one another port',
    ),
    (
        "server: {workers: 2, port: 0}",
        '5:19: several "workers" need a port that Envoy knows: each takes the next one — write server.port',
    ),
    (
        "server: {workers: 2, port: 65535}",
        "5:19: the last worker's port would be 65536 — write a lower server.port",
    ),
    (
        POLICY + "    models: [groq/llama]\n    rollout: {canary: openai/gpt-4o-mini}\n"
        "rollouts: {store: memory}\nserver: {workers: 2}",
        '10:19: rollouts need a "store" that all workers share, and memory is each one\'s own — name a file',
    ),
    (
        "routing: {deadline: 5s, router: {type: transformers, model: ./m}}\nserver: {workers: 2}\n"
        "envoy: {message_timeout: 6s}",
        "5:33: warning: each of the 2 workers would hold the routing model's weights"
        " — write routing.router.engine and start arch-ext-proc engine",
    ),
    ("server: {workers: 65}", '5:19: "workers" must be from 1 to 64 — write a number in that range'),
    (
        "server: {address: '127.0.0.1:80'}",
        '5:19: "address" is not a host name or an IP address'
        " — write e.g. 127.0.0.1; the port has its own key",
    ),
    (
        "envoy: {listener: {address: localhost}}",
        '5:29: "address" is not an IP address — write e.g. 127.0.0.1, or 0.0.0.0 for every interface',
    ),
    (
        "envoy: {listener: {port: 9901}}",
        "5:26: Envoy's listener and admin both use port 9901 — give one another port",
    ),
    (
        "listeners: {egress_traffic: {timeout: 30s}}\nenvoy: {listener: {port: 1}, request_timeout: 1m}",
        '5:29: "listeners" and "envoy.listener" say the same — keep envoy.listener',
        '5:39: "timeout" and "envoy.request_timeout" say the same — keep envoy.request_timeout',
    ),
    (
        "listeners: [{type: model, name: a}, {type: model, name: b}]",
        "5:37: a second listener for calls to models — keep one of them",
    ),
    ("envoy: {body_limit: 1KiB}", '5:21: "body_limit" must be from 64KiB to 1GiB — write e.g. 32MiB'),
    (
        "envoy: {decision_window: 1MiB}",
        '5:26: "decision_window" is for streamed bodies — add body_mode: streamed, or leave it out',
    ),
    (
        "envoy: {body_mode: streamed, body_limit: 64KiB, decision_window: 1MiB}",
        '5:66: "decision_window" is above "body_limit" — raise body_limit as well',
    ),
    ("envoy: [1]", '5:8: "envoy" must be a mapping — write "key: value" lines under it'),
]


@pytest.mark.parametrize(("text", "expected"), [(text, expected) for text, *expected in APPENDED])
def test_what_is_wrong_beside_sound_providers(text: str, expected: list[str]) -> None:
    assert problems_of(BASE + text) == expected


def test_a_file_without_a_salt_is_warned() -> None:
    without = BASE.replace("affinity: {salt: 0123456789abcdef}\n", "")
    assert problems_of(without) == [
        "1:1: warning: without affinity.salt, sessions change arms at a restart and differ between replicas"
        ' — write "affinity: {salt: $ARCH_SALT}"'
    ]
    assert problems_of(without + "affinity: {salt: short}") == [
        '4:18: warning: "salt" has fewer than 16 characters: a client could guess it and choose its arm'
        " — write e.g. the output of: openssl rand -hex 32"
    ]
    assert problems_of(without + "affinity: {salt: $SALT}", {"SALT": ""}) == [
        '4:18: "salt" is empty — set a long random text, or remove the key'
    ]


def test_one_run_finds_everything_and_a_bad_part_breeds_no_further_problems() -> None:
    text = """\
model_providers:
  - {modl: openai/gpt-4o, default: true}
  - {model: openai/gpt-4, access_key: $NO_1}
  - {model: v/x, base_url: $NO_2, access_key: $NO_3}
model_aliases: {a: {target: openai/gpt-4o}, b: {target: nobody}}
routing_preferences:
  - {name: p, description: 3, models: [v/x, nowhere]}
  - {description: d, targets: [{model: gpt-4o, weight: none}, {model: gpt-4, weight: 0}]}
routing: {router: 3, deadline: soon, on_failure: gpt-4o}
envoy: {message_timeout: 100ms}
affinity: secret
"""
    assert [problem.split(" — ")[0] for problem in problems_of(text)] == [
        '2:6: unknown key "modl"',
        "3:39: the environment variable NO_1 is not set",
        "4:28: the environment variable NO_2 is not set",
        "4:47: the environment variable NO_3 is not set",
        '5:57: there is no provider "nobody"',
        '7:28: "description" must be text, not a number',
        '7:45: there is no provider "nowhere"',
        '8:5: this policy has no "name"',
        '8:56: "weight" must be a number, not text',
        '9:19: "router" must be a mapping',
        '9:32: "deadline" is not a duration',
        '11:11: "affinity" must be a mapping',
    ]
