"""`python -m jaxaudit`, and the errors of the command line on one line each."""

import sys

import click

from .cli import cli


def main() -> int:
    """Run the command line.

    Returns:
      0 for success, 1 where a check failed, 2 for bad input, 130 after an interruption.
    """
    try:
        return cli.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return 0
    except click.ClickException as error:
        return _complain(error.format_message())
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except MemoryError as error:
        return _complain(f"not enough memory ({error}); use a smaller model, dimension or pool")
    except (click.Abort, KeyboardInterrupt):
        click.echo("jaxaudit: interrupted; nothing was written", err=True)
        return 130
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain("the device has too little memory; use a smaller model, dimension or pool")


def _complain(message: str) -> int:
    click.echo("jaxaudit: " + " ".join(message.split()), err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
