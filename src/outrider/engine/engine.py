"""The engine: continuous batching of requests whose drafts are verified in one pass."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from threading import Event
from typing import Any

from outrider.config import EngineConfig
from outrider.drafting.base import StateReader
from outrider.drafting.chain import Chain
from outrider.drafting.length import Outcome, Timing
from outrider.engine.admission import admit, check_priority
from outrider.engine.commit import abort, begin, commit, fail, resume
from outrider.engine.embedding import Embedder
from outrider.engine.facts import NO_STEP, EngineFacts, Occupancy, StepReport
from outrider.engine.generation import Resumption
from outrider.engine.lending import Lending
from outrider.engine.request import Request, RequestGroup
from outrider.engine.scheduler import Schedule, Scheduler
from outrider.engine.verify import Judged, verify
from outrider.engine.watcher import Watcher
from outrider.faults import Faults
from outrider.formats.format import Floats
from outrider.machine.cores import threads_reason
from outrider.models.runner import ModelRunner
from outrider.models.tokenizer import Tokenizer
from outrider.ops.base import Facts
from outrider.outputs import Increment, RequestOutput
from outrider.params import SamplingParams, StructuredOutputs
from outrider.sampling.grammar import Grammar, Grammars
from outrider.verification.rules import Acceptance

logger = logging.getLogger(__name__)

WAIT = 0.002  # seconds, where no request can go on


class Engine:
    """Runs requests to their end, one `step` at a time.

    What a request returns is a function of target, prompt, parameters and seed alone: not of the drafter,
    of draft lengths, of the other requests, or of when blocks ran out. So a fault in planning or drafting
    costs a step its drafts, and one in the pass ends those requests that it fails for alone (`verify`).

    watchers: are told what it does. With none, a step calls nothing for that.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        target: ModelRunner,
        tokenizer: Tokenizer,
        drafters: Chain,
        acceptance: Acceptance,
        scheduler: Scheduler,
        lending: Lending,
        embedder: Embedder,
        max_model_len: int,
        weights: str,
        sampling_defaults: Mapping[str, Any],
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.config = config
        self.target = target
        self.tokenizer = tokenizer
        self.drafters = drafters
        self.acceptance = acceptance
        self.scheduler = scheduler
        self.lending = lending
        self.embedder = embedder
        """Embeds texts between two steps."""
        self.max_model_len = max_model_len
        self.weights = weights
        """The format of the target's linear layers as they are computed with: 'Q8_0', 'int4'."""
        self.sampling_defaults = sampling_defaults
        """What a request should be sampled with where it does not say, by the names of SamplingParams."""
        model = target.model.config
        self.grammars = Grammars(tokenizer, model.vocab_size, model.eos_token_ids)
        self.report = NO_STEP
        """The report of the last step."""
        self._faults = Faults(logger)
        self._clock = clock
        self.now = now
        """Seconds, of which requests' times are made."""
        self._wait = wait
        self.watchers = list(watchers)
        """Who is told; whoever has the engine may add one, and take it away."""
        self._groups: dict[str, RequestGroup] = {}
        self._numbers = count()
        self._seeds = random.Random(config.seed)
        self._text_of = lru_cache(maxsize=None)(lambda token: tokenizer.decode([token]))

    @property
    def facts(self) -> Facts:
        """The facts of the backend that computes the target."""
        return self.target.facts

    @property
    def about(self) -> EngineFacts:
        """What has to be known of it."""
        config, model, facts = self.config, self.target.model.config, self.facts
        why = "PyTorch's" if facts.kernels is None else threads_reason(config.num_threads)
        speculative = config.speculative
        return EngineFacts(
            exact=facts.exact,
            device=facts.device,
            weights=self.weights,
            num_threads=facts.threads,
            threads=f"{facts.threads} ({why})",
            max_model_len=self.max_model_len,
            vocab_size=model.vocab_size,
            eos_token_ids=model.eos_token_ids,
            embedding_size=self.embedder.size,
            max_num_seqs=config.max_num_seqs,
            block_size=config.block_size,
            kv_cache_memory=config.kv_cache_memory,
            drafters=() if speculative is None else tuple(one.name for one in speculative.drafters),
            seed=config.seed,
        )

    @property
    def ours(self) -> Engine:
        """This one."""
        return self

    @property
    def occupancy(self) -> Occupancy:
        """What it has to do now."""
        return Occupancy(len(self.scheduler.running), len(self.scheduler.waiting), self.target.pool.used)

    def step(self) -> list[Increment]:
        """One forward pass of the target, and what every request gained by it; nothing if none waits."""
        self.target.check_process()
        began = self._clock()
        schedule = self._schedule()
        if self.watchers:
            self._tell(lambda watcher: watcher.scheduled(schedule))
        if not schedule.work:
            return self._wait_for_grammars(schedule)
        requests = [work.request for work in schedule.work]
        self._begin(requests)
        drafts = self.drafters.draft(requests, [work.plan for work in schedule.work])
        drafted = self._clock()
        judged = verify(self.target, self.acceptance, schedule.work, drafts)
        verified = self._clock() - drafted
        if self.watchers:
            self._tell(lambda watcher: watcher.verified(judged))
        self._tell_drafters(judged)
        increments = [self._commit(j) for j in judged]
        whole = self._clock() - began
        self._tell_policy(judged, verified, whole)
        self._release_finished(requests)
        self.report = StepReport(sum(self.drafters.seconds), verified, whole, len(schedule.preempted))
        if self.watchers:
            self._tell(lambda watcher: watcher.stepped(self, increments))
        return increments

    def prepare(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
        said: Sequence[Resumption] = (),
    ) -> RequestGroup:
        """A request that can be queued. Raises RequestError if it cannot run, ConfigError for a priority that
        it cannot have.

        Any thread may call it: what takes the longer the more a client sends need not be done between steps.
        priority: lower goes first; see `outrider.engine.admission.admit`. said: what another engine has told
        of each sequence, which then goes on behind that; the seed has to be the one that it was given there.
        """
        check_priority(priority, self.config.scheduling_policy)
        group = admit(
            str(next(self._numbers)),
            prompt_token_ids,
            params,
            prompt=prompt,
            seed=self._seeds.getrandbits(63) if params.seed is None else params.seed,
            target=self.target,
            tokenizer=self.tokenizer,
            max_model_len=self.max_model_len,
            grammars=self.grammars,
            priority=priority,
            now=self.now(),
        )
        for request, told in zip(group.requests, said, strict=bool(said)):
            resume(request, told, self.now())
        return group

    def compile_grammar(self, wanted: StructuredOutputs, given_up: Event) -> Grammar:
        """What `Grammars.compile` makes of it, and raises."""
        return self.grammars.compile(wanted, given_up)

    def queue(self, group: RequestGroup) -> str:
        """Queue a request that was prepared; returns its id."""
        self._groups[group.id] = group
        for request in group.requests:
            if request.finish_reason is None:  # one that is resumed may have ended already
                self.scheduler.add(request)
        return group.id

    def add(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
    ) -> str:
        """`prepare` and `queue`. Raises what `prepare` does, with nothing queued."""
        return self.queue(self.prepare(prompt_token_ids, params, prompt=prompt, priority=priority))

    def abort(self, request_id: str) -> None:
        """Stop a request and free its blocks; its output so far can still be taken."""
        for request in self._groups[request_id].requests:
            if request.finish_reason is None:
                self._or_fail(request, partial(abort, request))
            self._release(request)  # also if it finished in a step that then failed

    def take(self, request_id: str) -> RequestOutput:
        """The output of a request; if it has finished, the engine forgets it."""
        group = self._groups[request_id]
        output = group.output()
        if group.finished:
            del self._groups[request_id]
            self._tell(lambda watcher: watcher.finished(output))
        return output

    def discard(self, request_id: str) -> None:
        """Abort and forget a request, if the engine still knows it."""
        if request_id in self._groups:
            self.abort(request_id)
            self.take(request_id)

    def finished(self, request_id: str) -> bool:
        """Whether a request that was not taken yet has its whole output."""
        return self._groups[request_id].finished

    def harmed(self) -> list[str]:
        """The requests that a step which failed may have harmed; if none ran yet, the one that was to
        start."""
        return [request.id for request in self.scheduler.running or self.scheduler.waiting[:1]]

    def embed(self, tokens: Sequence[int]) -> Floats:
        """The embedding of a text, between two steps. Raises what `Embedder.embed` does."""
        self._tell(lambda watcher: watcher.embedding())
        return self.embedder.embed(tokens)

    def read_states(self, reader: StateReader) -> None:
        """Have the target's states read by one more, from the next step on. Called between two steps."""
        self.drafters.add_reader(reader)
        self.target.hand_out(self.drafters.state_layers)

    def reset_prefix_cache(self) -> bool:
        """Forget all beginnings of prompts that were kept; False, with nothing done, while requests run."""
        if self.unfinished:
            return False
        self.target.pool.unpublish()
        return True

    def close(self) -> None:
        """Nothing runs besides the thread that calls this."""

    @property
    def unfinished(self) -> bool:
        """Whether any request still has tokens to come."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def _schedule(self) -> Schedule:
        try:
            schedule = self.scheduler.schedule()
        except Exception:
            self._faults.tell("drafts could not be planned")
            schedule = self.scheduler.schedule_plainly()
        for request in schedule.preempted:
            self.drafters.end(request)
        with self._faults.tolerated("the drafters' memory could not be lent or taken back"):
            self.lending.observe(schedule)
        self.scheduler.resting = self.lending.resting
        return schedule

    def _begin(self, requests: Sequence[Request]) -> None:
        now = self.now()
        for request in requests:
            begin(request, now)

    def _wait_for_grammars(self, schedule: Schedule) -> list[Increment]:
        """A step in which no request can go on."""
        self.report = StepReport(0.0, 0.0, 0.0, len(schedule.preempted))
        if self.unfinished:
            self._wait(WAIT)
        self._tell(lambda watcher: watcher.stepped(self, ()))
        return []

    def _tell(self, event: Callable[[Watcher], None]) -> None:
        for watcher in self.watchers:
            try:
                event(watcher)
            except Exception:
                self._faults.tell("what the engine does could not be watched")

    def _commit(self, judged: Judged) -> Increment:
        request = judged.work.request

        def change(now: float) -> Increment:
            increment = commit(judged, now, self._text_of)
            count = judged.work.count
            self.target.keep(request.table, count, judged.verdict.path[: increment.accepted])
            self.scheduler.advance(request, count + increment.accepted)
            return increment

        return self._or_fail(request, change)

    def _or_fail(self, request: Request, change: Callable[[float], Increment]) -> Increment:
        """Change a request at this time. A fault in that ends the request alone."""
        now = self.now()
        try:
            return change(now)
        except Exception:
            logger.exception("request %s could not be committed or ended", request.id)
            return fail(request, now)

    def _tell_drafters(self, judged: Sequence[Judged]) -> None:
        for j in judged:
            if j.states is not None:
                self.drafters.read(j.work.request, j.work.request.table.filled, j.computed)
        ready = [j for j in judged if j.verdict.tokens]
        self.drafters.observe([j.work.request for j in ready], [j.verdict for j in ready])

    def _tell_policy(self, judged: Sequence[Judged], verified: float, whole: float) -> None:
        with self._faults.tolerated("the policy of draft lengths could not learn"):
            outcomes = []
            for j in (j for j in judged if j.verdict.tokens):
                draft = j.draft if j.draft.probs is None else replace(j.draft, probs=None)
                outcomes.append(Outcome(j.work.request, j.work.plan, draft, j.verdict))
            timing = Timing(tuple(self.drafters.seconds), verified, whole)
            self.scheduler.policy.observe(outcomes, timing)

    def _release_finished(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if request.finish_reason is not None:
                self._release(request)

    def _release(self, request: Request) -> None:
        self.scheduler.remove(request)
        self.drafters.end(request)
        with self._faults.tolerated("the policy of draft lengths could not forget a request"):
            self.scheduler.policy.end(request)
