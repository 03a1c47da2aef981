"""Every error the library raises, in one tree.

    LoratError
    ├── ConfigError              an argument or setting that cannot be honoured
    ├── BaseError                a base model that cannot be found, verified or wrapped
    ├── InputError               a text or token ids that cannot be run
    │   └── InputTooLongError    longer than the model takes, and truncation was not asked for
    ├── AdapterError             something about an adapter
    │   ├── AdapterFileError     its files are damaged, incomplete or contradict one another
    │   ├── UnsupportedAdapterError  its files ask for arithmetic that is not implemented
    │   ├── BaseMismatchError    it was made for another base
    │   ├── ProbeError           it does not answer its probes as it did when it was saved
    │   ├── NoHeadError          it has no head for the task that was asked for
    │   └── NotLoadedError       it was unloaded before it was used
    └── SlotsFullError           every slot holds an adapter

Each message names what is wrong and what to change.
"""


class LoratError(Exception):
    """Base of every error that LoRAT raises on purpose."""


class ConfigError(LoratError, ValueError):
    """An argument or setting that cannot be honoured."""


class BaseError(LoratError):
    """A base model that cannot be found, verified or wrapped."""


class InputError(LoratError, ValueError):
    """A text or a list of token ids that cannot be run."""


class InputTooLongError(InputError):
    """An input longer than the model takes, where truncation was not asked for."""


class AdapterError(LoratError):
    """Something is wrong with an adapter, or with what was asked of it."""


class AdapterFileError(AdapterError):
    """An adapter's files are damaged, incomplete, or contradict one another."""


class UnsupportedAdapterError(AdapterError):
    """An adapter's files ask for arithmetic that LoRAT does not implement."""


class BaseMismatchError(AdapterError):
    """An adapter was made for another base model."""


class ProbeError(AdapterError):
    """An adapter does not answer its probes as it did when it was saved."""


class NoHeadError(AdapterError):
    """An adapter has no head for the task that was asked for."""


class NotLoadedError(AdapterError):
    """An adapter was used after it had been unloaded."""


class SlotsFullError(LoratError):
    """Every slot holds an adapter: unload one, or ask for more slots."""
