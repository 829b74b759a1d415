"""`live-runner completion` and `live-runner config-schema`: help from the shell and from the editor.

Both are made from what the program really takes, so they cannot fall behind it: the completion from the
argument parser, the JSON Schema from the configuration's dataclasses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add(command: Any, load: Any) -> None:
    """Registers the verbs."""
    sub = command(
        "completion", _completion, "print a completion script for your shell",
        "completion bash > ~/.local/share/bash-completion/completions/live-runner\n"
        '  eval "$(live-runner completion zsh)"\n'
        "  live-runner completion fish > ~/.config/fish/completions/live-runner.fish",
    )  # fmt: skip
    sub.add_argument("shell", choices=SHELLS)

    sub = command(
        "config-schema", _schema, "print the JSON Schema of the configuration, for editors",
        "config-schema --output live.schema.json      init-config writes it too",
    )  # fmt: skip
    sub.add_argument("--output", type=Path, default=None, metavar="FILE", help="default: the terminal")


def _schema(args: argparse.Namespace) -> int:
    from live.config_json_schema import json_schema

    text = json.dumps(json_schema(), indent=1) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
        print(json.dumps({"path": str(args.output)}) if args.json else f"wrote {args.output}")
    return 0


def _completion(args: argparse.Namespace) -> int:
    from live.cli import _parser

    if args.json:
        print(json.dumps(words_of(_parser()), indent=1))
        return 0
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](words_of(_parser())), end="")
    return 0


def words_of(parser: argparse.ArgumentParser) -> dict[str, dict[str, str]]:
    """Per command ("" for none) its options and choices, with what they are for."""
    found: dict[str, dict[str, str]] = {"": {}}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found[""] |= {name: about.get(name, "") for name in action.choices}
            for name, sub in action.choices.items():
                found[name] = _options(sub)
        else:
            found[""] |= {option: action.help or "" for option in action.option_strings}
    return found


def _options(parser: argparse.ArgumentParser) -> dict[str, str]:
    options: dict[str, str] = {}
    for action in parser._actions:
        options |= {option: action.help or "" for option in action.option_strings}
        if not action.option_strings and action.choices:
            options |= {str(choice): action.help or "" for choice in action.choices}
    return options


def _bash(words: dict[str, dict[str, str]]) -> str:
    cases = "".join(
        f'    {name}) words="{" ".join(options)}" ;;\n' for name, options in words.items() if name
    )
    return f"""\
# completion of live-runner for bash
_live_runner() {{
  local word words command=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in -*) ;; {"|".join(name for name in words if name)}) command="$word"; break ;; esac
  done
  case "$command" in
{cases}    *) words="{" ".join(words[""])}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _live_runner live-runner
"""


def _zsh(words: dict[str, dict[str, str]]) -> str:
    begin = "(( $+functions[compdef] )) || { autoload -U +X compinit && compinit; }\n"
    return begin + "autoload -U +X bashcompinit && bashcompinit\n" + _bash(words)


def _fish(words: dict[str, dict[str, str]]) -> str:
    names = " ".join(name for name in words if name)
    lines = ["# completion of live-runner for fish"]
    for name, options in words.items():
        when = f"__fish_seen_subcommand_from {name}" if name else f"not __fish_seen_subcommand_from {names}"
        for option, about in options.items():
            text = about.replace("'", "").replace("%%", "%")
            what = f"-l {option[2:]}" if option.startswith("--") else f"-a {option}"
            if not option.startswith("-") or option.startswith("--"):
                lines.append(f"complete -c live-runner -n '{when}' {what} -d '{text}'")
    return "\n".join(lines) + "\n"
