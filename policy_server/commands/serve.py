"""`serve --checkpoint …`, `--follow …`, `--policy …`: a policy behind WebSocket and gRPC."""

from __future__ import annotations

from typing import Annotated

import typer

from policy_server.commands import model_flags as model
from policy_server.commands import operation_flags as flags
from policy_server.commands.model_source import ModelSource
from policy_server.log import LogFormat, LogLevel, show_log
from policy_server.options import ServerOptions
from policy_server.policies.served import ServedPolicy

__all__ = ["serve_command"]

_DEFAULT = ServerOptions()


def serve_command(
    context: typer.Context,
    checkpoint: model.Checkpoint = None,
    follow: model.Follow = None,
    follow_on_request: model.FollowOnRequest = False,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="random|zeros|replay:DATASET",
            help="Instead of a checkpoint, a policy without a model, to debug a simulator.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to bind; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="WebSocket and HTTP port; 0 takes a free one and prints it.")
    ] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="gRPC port; 0 takes a free one. Default: the one above --port.")
    ] = None,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Whether to serve gRPC.")] = True,
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Policy spec for a stock openpi checkpoint or --policy: pi05_libero, …, or a policy_spec.json.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="sentencepiece model (path or URL) for the same. Default: PaliGemma's with --spec NAME."),
    ] = None,
    dtype: model.Dtype = None,
    devices: model.Devices = 1,
    shard: model.Shard = False,
    attention: model.AttentionFlag = model.Attention.PLAIN,
    batch_sizes: Annotated[str, typer.Option(help="Batch shapes to compile, comma-separated.")] = "1,2,4,8",
    compile_cache: model.CompileCache = None,
    api_key_file: flags.ApiKeyFile = None,
    tls_cert: flags.TlsCert = None,
    tls_key: flags.TlsKey = None,
    max_message_bytes: flags.MaxMessageBytes = _DEFAULT.max_message_bytes,
    max_connections: flags.MaxConnections = _DEFAULT.max_connections,
    max_waiting: flags.MaxWaiting = _DEFAULT.max_waiting,
    max_batch: flags.MaxBatch = _DEFAULT.max_batch,
    max_unanswered: flags.MaxUnanswered = _DEFAULT.max_unanswered,
    default_deadline: flags.DefaultDeadline = _DEFAULT.default_deadline_s,
    max_deadline: flags.MaxDeadline = _DEFAULT.max_deadline_s,
    read_timeout: flags.ReadTimeout = _DEFAULT.read_timeout_s,
    idle_connection: flags.IdleConnection = _DEFAULT.idle_connection_s,
    idle_timeout: flags.IdleTimeout = _DEFAULT.idle_timeout_s,
    log_format: flags.LogFormatFlag = LogFormat.HUMAN,
    log_level: flags.LogLevelFlag = LogLevel.INFO,
) -> None:
    """Serve a policy's action chunks: openpi's WebSocket protocol, ours, gRPC, /healthz, /readyz, /metrics, /spec."""
    if context.invoked_subcommand is not None:
        return
    show_log(log_format, log_level)
    if [checkpoint, follow, policy].count(None) != 2:
        raise typer.BadParameter("Pass one of --checkpoint, --follow and --policy.", param_hint="--checkpoint")
    if follow_on_request and follow is None:
        raise typer.BadParameter(
            "It needs --follow RUN_DIR, whose steps clients ask for.", param_hint="--follow-on-request"
        )
    sizes = _sizes(batch_sizes)
    if dtype not in (None, "bfloat16", "float32"):
        raise typer.BadParameter(f"{dtype!r} is neither bfloat16 nor float32.", param_hint="--dtype")
    options = ServerOptions(
        host=host,
        port=port,
        grpc=grpc,
        grpc_port=grpc_port,
        api_key_file=api_key_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        batch_sizes=sizes,
        max_message_bytes=max_message_bytes,
        max_connections=max_connections,
        max_waiting=max_waiting,
        max_batch=max_batch,
        max_unanswered=max_unanswered,
        default_deadline_s=default_deadline,
        max_deadline_s=max_deadline,
        read_timeout_s=read_timeout,
        idle_connection_s=idle_connection,
        idle_timeout_s=60 * idle_timeout,
    )
    from policy_server.process import run_server  # loads jax, which takes seconds

    served: ServedPolicy
    follower = None
    if policy is not None:
        from policy_server.policies.named import named_policy

        served = named_policy(policy, spec)
    else:
        source = ModelSource(
            checkpoint, follow, follow_on_request, spec, tokenizer, dtype, attention, devices, shard, compile_cache
        )
        served, follower = source.load()
    run_server(served, options, follower)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(size) for size in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise typer.BadParameter(f"{text!r} is not a list of batch sizes such as 1,2,4,8.", param_hint="--batch-sizes")
    return sizes
