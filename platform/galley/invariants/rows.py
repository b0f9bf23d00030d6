"""What the tables alone can tell."""

from apps.audit.models import AuditEvent
from apps.audit.services import first_broken_event
from apps.common.leases import ACTIVE_STATES
from apps.drafts.models import LIVE_STATES
from galley.invariants.found import Found, Inputs

REAPED_WITHIN_S = 60.0
"""A lease that ran out this long ago should have been noticed: the sweep comes every 5 s."""

_ACTIVE = list(map(str, ACTIVE_STATES))
_LIVE = list(map(str, LIVE_STATES))


def jobs_end(found: Found, inputs: Inputs) -> None:
    for table in ("drafts_job", "tuning_run"):
        found.count(table)
        found.wrong_where(
            f"""
            SELECT concat_ws(' ', '{table}', id, 'is still', state, 'since', greatest(created_at, run_at))
            FROM {table}
            WHERE state = ANY(%s)
              AND (%s OR greatest(created_at, run_at) < clock_timestamp() - %s * interval '1 second')
            """,
            *(_ACTIVE, inputs.idle, inputs.deadline_s),
        )
        found.wrong_where(
            f"""
            SELECT concat_ws(' ', '{table}', id, 'lost its lease at', lease_until, 'and nobody noticed')
            FROM {table}
            WHERE state = 'running' AND lease_until < clock_timestamp() - %s * interval '1 second'
            """,
            REAPED_WITHIN_S,
        )
        found.wrong_where(
            f"""
            SELECT concat_ws(' ', '{table}', id, 'is', state, 'without saying when or why') FROM {table}
            WHERE state IN ('failed', 'cancelled') AND reason = ''
               OR state IN ('done', 'failed', 'cancelled') AND finished_at IS NULL
            """
        )
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'draft', d.id, 'is', d.state, 'but its job', j.id, 'is', j.state)
        FROM drafts_draft d JOIN drafts_job j ON j.draft_id = d.id
        WHERE (d.state = ANY(%s)) <> (j.state = ANY(%s))
        """,
        *(_LIVE, _ACTIVE),
    )


def chunks_are_numbered(found: Found, _inputs: Inputs) -> None:
    found.count("drafts_chunk")
    found.wrong_where(
        """
        WITH numbered AS MATERIALIZED (
            SELECT draft_id, attempt, count(*) AS n, min(seq) AS first, max(seq) AS last,
                   sum(cardinality(token_ids)) AS num_tokens
            FROM drafts_chunk GROUP BY draft_id, attempt
        )
        SELECT concat_ws(' ', 'draft', draft_id, 'attempt', attempt, 'has', n, 'chunks,', first, 'to', last)
        FROM numbered WHERE first <> 1 OR last <> n
        UNION ALL
        SELECT concat_ws(' ', 'draft', d.id, 'counts', d.last_seq, 'chunks and', d.num_tokens,
                         'tokens; there are', coalesce(c.n, 0), 'and', coalesce(c.num_tokens, 0))
        FROM drafts_draft d LEFT JOIN numbered c ON c.draft_id = d.id AND c.attempt = d.attempt
        WHERE d.last_seq <> coalesce(c.n, 0) OR d.num_tokens <> coalesce(c.num_tokens, 0)
        UNION ALL
        SELECT concat_ws(' ', 'draft', d.id, 'is at attempt', d.attempt, 'and has chunks of', c.attempt)
        FROM numbered c JOIN drafts_draft d ON d.id = c.draft_id WHERE c.attempt > d.attempt
        """
    )


def texts_are_their_chunks(found: Found, _inputs: Inputs) -> None:
    found.count("drafts_draft")
    found.wrong_where(
        """
        WITH joined AS (
            SELECT draft_id, attempt, string_agg(text, '' ORDER BY seq) AS text
            FROM drafts_chunk GROUP BY draft_id, attempt
        )
        SELECT concat_ws(' ', 'draft', d.id, 'has another generated text than its chunks')
        FROM drafts_draft d LEFT JOIN joined c ON c.draft_id = d.id AND c.attempt = d.attempt
        WHERE d.state <> ALL(%s) AND d.generated_text <> coalesce(c.text, '')
        """,
        _LIVE,
    )
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'draft', id, 'has another hash than its text') FROM drafts_draft
        WHERE state <> ALL(%s) AND content_sha256 <> encode(sha256(convert_to(text, 'UTF8')), 'hex')
        """,
        _LIVE,
    )
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'revision', id, 'of draft', draft_id, 'has another hash than its text')
        FROM drafts_revision WHERE sha256 <> encode(sha256(convert_to(text, 'UTF8')), 'hex')
        """
    )


def decisions_bind_to_texts(found: Found, _inputs: Inputs) -> None:
    found.count("reviews_review")
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'review', r.id, 'of draft', r.draft_id, 'has', count(*), 'decisions')
        FROM reviews_decision d JOIN reviews_review r ON r.id = d.review_id
        GROUP BY r.id HAVING count(*) > 1
        UNION ALL
        SELECT concat_ws(' ', 'draft', draft_id, 'has', count(*), 'rounds up to number', max(round))
        FROM reviews_review GROUP BY draft_id HAVING count(*) <> max(round) OR min(round) <> 1
        UNION ALL
        SELECT concat_ws(' ', 'review', r.id, 'has another hash than its text')
        FROM reviews_review r WHERE r.content_sha256 <> encode(sha256(convert_to(r.text, 'UTF8')), 'hex')
        UNION ALL
        SELECT concat_ws(' ', 'the decision on review', r.id, 'is bound to another text than was submitted')
        FROM reviews_decision d JOIN reviews_review r ON r.id = d.review_id
        WHERE d.content_sha256 <> r.content_sha256
        UNION ALL
        SELECT concat_ws(' ', 'the decision on review', review_id, 'has another hash than its text')
        FROM reviews_decision WHERE text_sha256 <> encode(sha256(convert_to(text, 'UTF8')), 'hex')
        UNION ALL
        SELECT concat_ws(' ', 'draft', dr.id, 'is approved with another text than was decided on')
        FROM drafts_draft dr
        JOIN reviews_review r ON r.draft_id = dr.id
         AND r.round = (SELECT max(round) FROM reviews_review last WHERE last.draft_id = dr.id)
        LEFT JOIN reviews_decision d ON d.review_id = r.id
        WHERE dr.state = 'approved' AND d.text_sha256 IS DISTINCT FROM dr.content_sha256
        """
    )


def acts_are_audited(found: Found, _inputs: Inputs) -> None:
    """Sign-ins leave no row of their own, so of N7 that part cannot be checked."""
    found.count("audit_auditevent")
    for table, key, object_type, actions in (
        ("reviews_decision", "review_id", "review", "'review.' || acts.decision"),
        ("tuning_release", "id", "release", "ANY (ARRAY['release.promoted', 'release.rolled_back'])"),
        ("tuning_nightlyrun", "id", "nightlyrun", "ANY (ARRAY['nightly.started', 'nightly.skipped'])"),
    ):
        found.wrong_where(
            f"""
            SELECT concat_ws(' ', '{table}', acts.{key}, 'has', count(a.id), 'rows in the trail')
            FROM {table} acts LEFT JOIN audit_auditevent a
              ON a.object_type = '{object_type}' AND a.object_id = acts.{key}::text AND a.action = {actions}
            GROUP BY acts.{key} HAVING count(a.id) <> 1
            """
        )
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'membership', m.id, 'is', m.role, 'and the trail says', a.role)
        FROM projects_membership m JOIN projects_project p ON p.id = m.project_id
        LEFT JOIN LATERAL (
            SELECT data ->> 'role' AS role FROM audit_auditevent
            WHERE object_type = 'membership' AND object_id = m.id::text AND action = 'member.set'
            ORDER BY id DESC LIMIT 1
        ) a ON true
        WHERE coalesce(a.role, CASE WHEN m.user_id = p.created_by_id THEN 'admin' END) IS DISTINCT FROM m.role
        """
    )
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'audit row', id, 'is older than the row before it')
        FROM (SELECT id, at, lag(at) OVER (ORDER BY id) AS before FROM audit_auditevent) AS trail
        WHERE at < before
        """
    )
    broken: AuditEvent | None = first_broken_event()
    if broken:
        found.wrong(f"audit row {broken.pk} does not continue the chain of hashes")


def nights_are_single(found: Found, _inputs: Inputs) -> None:
    found.count("tuning_nightlyrun")
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'project', project_id, 'has', count(*), 'nights on', local_date)
        FROM tuning_nightlyrun GROUP BY project_id, local_date HAVING count(*) > 1
        UNION ALL
        SELECT concat_ws(' ', 'project', project_id, 'trains', count(*), 'times at once')
        FROM tuning_run WHERE state = ANY(%s) GROUP BY project_id HAVING count(*) > 1
        """,
        _ACTIVE,
    )


def adapters_are_pinned(found: Found, _inputs: Inputs) -> None:
    """The pin is the only place from which a worker takes the adapter of a request."""
    found.count("drafts_draft")
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'draft', d.id, 'names an adapter that is not of release', d.release_id)
        FROM drafts_draft d
        LEFT JOIN tuning_release r ON r.id = d.release_id
        LEFT JOIN tuning_adapter a ON a.id = r.adapter_id
        WHERE d.adapter_sha256 <> coalesce(a.sha256, '')
        UNION ALL
        SELECT concat_ws(' ', 'draft', d.id, 'was written with a release of project', r.project_id)
        FROM drafts_draft d JOIN tuning_release r ON r.id = d.release_id
        JOIN projects_brief b ON b.id = d.brief_id
        WHERE r.project_id <> b.project_id
        UNION ALL
        SELECT concat_ws(' ', 'draft', id, 'has a text and names no model')
        FROM drafts_draft WHERE last_seq > 0 AND model_sha256 = ''
        """
    )
