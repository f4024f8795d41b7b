"""`python -m jaxaudit`, and the errors of the command line on one line each."""

import os
import sys
import traceback

import click

from .cli import cli

# As a shell says it of a program that SIGPIPE ended, and EX_SOFTWARE of sysexits.
_CLOSED_PIPE, _DEFECT = 141, 70


def main() -> int:
    """Run the command line.

    Returns:
      0 for success, 1 where a check failed or a claim is contradicted and for nothing else, 2 for bad input, 70 for a
      defect of jaxaudit, 130 after an interruption, 141 where nobody read the output to its end.
    """
    try:
        code = _answer()
        sys.stdout.flush()
        return code
    except SystemExit as exit_:
        # From click's echo or from rich, which would end with 1: a verdict.
        if not isinstance(exit_.__context__, BrokenPipeError):
            raise
    except BrokenPipeError:
        pass
    _silence()
    return _CLOSED_PIPE


def _answer() -> int:
    try:
        return cli.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return 0
    except click.ClickException as error:
        return _complain(error.format_message())
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except MemoryError as error:
        return _complain(f"not enough memory ({error}); use a smaller model, dimension or pool")
    except (click.Abort, KeyboardInterrupt):
        click.echo("jaxaudit: interrupted; nothing was written", err=True)
        return 130
    except Exception as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return _complain("the device has too little memory; use a smaller model, dimension or pool")
        traceback.print_exc()
        return _DEFECT


def _complain(message: str) -> int:
    click.echo("jaxaudit: " + " ".join(message.split()), err=True)
    return 2


def _silence() -> None:
    """Point stdout nowhere, so that what is left in its buffer is no error when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


if __name__ == "__main__":
    sys.exit(main())
