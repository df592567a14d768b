"""The chat of `slmops run`: reads messages and commands, and does what they say. Commands are Ollama's, where it has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model_registry.name_matching import nearest_names
from server.cli.chat_lines import line_editing, read_message, without_quotes
from server.cli.chat_parameters import field_of, read_value
from server.cli.conversation import Conversation
from server.cli.failures import CommandFailed
from server.cli.terminal import print_error, print_line, print_note

_HELP = '''/? or /help                  this text
/show                        model, parameters and system message
/set parameter NAME VALUE    temperature, top_p, seed, max_tokens, stop, ...;
                             without VALUE: the model's default again
/set system TEXT             the system message (also /system TEXT);
                             without TEXT: none
/load MODEL                  another model, in a new conversation
/clear                       forget the conversation
/bye                         end (so does ctrl-D)
"""                          begins and ends a message of several lines
ctrl-C                       stops an answer; the chat continues'''
_BYE = ("/bye", "/exit", "/quit")


class ChatSession:
    """find_model: the name of a model that was typed, which it may pull first; raises CommandFailed."""

    def __init__(self, conversation: Conversation, find_model: Callable[[str], str]) -> None:
        self._conversation = conversation
        self._find_model = find_model
        self._commands: dict[str, Callable[[str], None]] = {
            "/?": self._help,
            "/help": self._help,
            "/show": self._show,
            "/set": self._set,
            "/system": self._set_system,
            "/load": self._load,
            "/clear": self._clear,
        }

    def run(self, history: Path | None = None) -> None:
        """Until /bye or the end of input. What fails is reported, and the chat continues. history: a file for what is typed."""
        with line_editing(history):
            print_note("/? lists the commands; ctrl-D ends.")
            while (message := read_message()) is not None:
                if message.strip().lower() in _BYE:
                    return
                self._take(message)

    def _take(self, message: str) -> None:
        try:
            if message.lstrip().startswith("/"):
                self._command(message.strip())
            elif text := without_quotes(message).strip():
                self._conversation.send(text)
        except KeyboardInterrupt:
            print_note("stopped.")
        except CommandFailed as error:
            print_error(error.message)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name.lower())
        if command is None:
            near = nearest_names(name[1:], [each[1:] for each in (*self._commands, *_BYE)])
            meant = f"did you mean {' or '.join(f'/{each}' for each in near)}?" if near else "/? lists them"
            raise CommandFailed(f"{name} is not a command; {meant}")
        command(rest.strip())

    def _help(self, _rest: str) -> None:
        print_line(_HELP)

    def _show(self, _rest: str) -> None:
        options = dict(self._conversation.options)
        print_line(f"model       {options.pop('model', None) or 'the default of the daemon'}")
        print_line(f"system      {self._conversation.system or 'none'}")
        print_line(f"parameters  {', '.join(f'{name} {value}' for name, value in options.items()) or 'the defaults of the model'}")

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        match what.lower():
            case "parameter":
                self._set_parameter(value.strip())
            case "system":
                self._set_system(value.strip())
            case _:
                raise CommandFailed("write `/set parameter NAME VALUE` or `/set system TEXT`")

    def _set_parameter(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        if not name:
            raise CommandFailed("write `/set parameter NAME VALUE`, as in `/set parameter temperature 0.2`")
        field = field_of(name)
        if not text.strip():
            self._conversation.options.pop(field, None)
            print_note(f"{field} has the model's default.")
            return
        self._conversation.options[field] = read_value(name, text.strip())
        print_note(f"{field} is {self._conversation.options[field]}.")

    def _set_system(self, text: str) -> None:
        self._conversation.system = without_quotes(text).strip() or None
        print_note("the system message is set." if self._conversation.system else "there is no system message.")

    def _load(self, name: str) -> None:
        if not name:
            raise CommandFailed("write `/load MODEL`; `slmops list` shows the models")
        self._conversation.options["model"] = self._find_model(name)
        self._conversation.clear()
        print_note(f"{self._conversation.options['model']} answers from now on, in a new conversation.")

    def _clear(self, _rest: str) -> None:
        self._conversation.clear()
        print_note("the conversation is forgotten.")
