"""One settings file, read from the environment. A bad value stops the start with its name."""

import os
import secrets
import socket
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from galley import embedded
from galley.model_choice import chosen_model

ROOT = Path(__file__).resolve().parents[2]
env = environ.Env()
env.read_env(ROOT / ".env", overwrite=False)

HOME = Path(env("GALLEY_HOME", default=str(ROOT / "var"))).expanduser().resolve()
DEBUG = env.bool("GALLEY_DEBUG", default=False)


def _secret_key() -> str:
    """The configured key, or one made once and kept in the state folder."""
    if configured := env("SECRET_KEY", default=""):
        return str(configured)
    path = HOME / "secret_key"
    HOME.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text().strip()


SECRET_KEY = _secret_key()
PORT = env.int("PORT", default=8000)
ALLOWED_HOSTS = env.list("GALLEY_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "GALLEY_ALLOWED_HOSTS must name hosts: '*' would switch off the origin check of WebSockets."
    )
CSRF_TRUSTED_ORIGINS = env.list("GALLEY_TRUSTED_ORIGINS", default=[])

# --- where things live -------------------------------------------------------------------------

_embedded_urls = embedded.urls(HOME)
DATABASE_URL = env("DATABASE_URL", default="") or _embedded_urls["DATABASE_URL"]
REDIS_URL = env("REDIS_URL", default="") or _embedded_urls["REDIS_URL"]

DATABASES: dict[str, dict[str, Any]] = {"default": env.db_url_config(DATABASE_URL)}
DATABASES["default"].setdefault("OPTIONS", {})
DATABASES["default"]["OPTIONS"]["options"] = (
    "-c lock_timeout=2s -c statement_timeout=20s -c idle_in_transaction_session_timeout=30s"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10s"
)
# A peer that is gone without a word, behind a cut link or on a machine without power, is noticed after
# some 10 s: by us from these, by PostgreSQL from the options above. Unix sockets need none of it.
DATABASES["default"]["OPTIONS"] |= {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
DATABASES["default"]["CONN_MAX_AGE"] = 0
if _pool_size := env.int("GALLEY_DB_POOL", default=0):
    # For the web process and for writing workers, whose many threads each need a session for moments only.
    # Not for any worker: a pool inside Celery's own can hang (DECISIONS.md). Who gets no session in time
    # is told that the database is away; the pool tries again at least every other second.
    DATABASES["default"]["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": _pool_size,
        "timeout": env.float("GALLEY_DB_WAIT_S", default=10.0),
        "reconnect_timeout": 2,
    }


def _redis_db(number: int) -> str:
    """The same server, another numbered database: 0 hints, 1 task messages."""
    address = urlsplit(REDIS_URL)
    if address.scheme == "unix":
        return f"unix://{address.path}?db={number}"
    return address._replace(path=f"/{number}", query="").geturl()


_keepalive = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 5,
        socket.TCP_KEEPINTVL: 2,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 10_000,
    },
}
_hints: dict[str, Any] = {} if REDIS_URL.startswith("unix://") else _keepalive
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py 8 gives up after 5 s of silence unless told otherwise; a silent hint channel is normal.
        "CONFIG": {"hosts": [{"address": _redis_db(0), "socket_timeout": None, **_hints}]},
    }
}

_broker = _redis_db(1)
CELERY_BROKER_URL = (
    _broker.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    if _broker.startswith("unix://")
    else _broker
)
CELERY_BROKER_TRANSPORT_OPTIONS = {
    **_keepalive,
    "socket_connect_timeout": 2,
    "max_retries": 0,  # who rings does not wait for a broker that is away: the table is looked at anyway
}

# Adapters and everything else that is kept by its hash: a folder that every machine mounts.
STORE = Path(env("GALLEY_STORE", default="") or HOME / "store").expanduser().resolve()
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "artifacts": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(STORE)},
    },
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
STATIC_URL = "static/"
STATIC_ROOT = HOME / "static"
STATICFILES_DIRS = [path for path in [ROOT / "static-build"] if path.is_dir()]

# --- the model, the school ---------------------------------------------------------------------

GALLEY_MODEL = env("GALLEY_MODEL", default="") or chosen_model(HOME)
GALLEY_CONTEXT = env.int("GALLEY_CONTEXT", default=8192)
GALLEY_MAX_SEQUENCES = env.int("GALLEY_MAX_SEQUENCES", default=16)
GALLEY_MAX_QUEUED = env.int("GALLEY_MAX_QUEUED", default=10_000)
GALLEY_TRAINING_THREADS = env.int("GALLEY_TRAINING_THREADS", default=1)
GALLEY_NIGHTLY_AT = env("GALLEY_NIGHTLY_AT", default="02:30")
try:
    time.fromisoformat(GALLEY_NIGHTLY_AT)
except ValueError as error:
    raise ImproperlyConfigured(
        f"GALLEY_NIGHTLY_AT must be a time like 02:30, not {GALLEY_NIGHTLY_AT!r}."
    ) from error
GALLEY_MIN_SAMPLES = env.int("GALLEY_MIN_SAMPLES", default=4)
# A worker that says nothing for so long is taken for dead, and another one goes on with its work.
GALLEY_LEASE_S = env.float("GALLEY_LEASE_S", default=30.0)

# --- faults on purpose -------------------------------------------------------------------------

GALLEY_HTTPS = env.bool("GALLEY_HTTPS", default=False)
GALLEY_FAULT = env("FAULT", default="")
if GALLEY_FAULT and (GALLEY_HTTPS or not env.bool("GALLEY_FAULTS_ALLOWED", default=False)):
    raise ImproperlyConfigured(
        "FAULT makes processes die on purpose: unset it. Only tests set GALLEY_FAULTS_ALLOWED as well, "
        "and a server behind HTTPS never takes it."
    )

# --- Django ------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_htmx",
    "pgtrigger",
    "galley",
    "apps.common",
    "apps.audit",
    "apps.accounts",
    "apps.projects",
    "apps.styles",
    "apps.drafts",
    "apps.batches",
    "apps.quality",
    "apps.reviews",
    "apps.tuning",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apps.common.middleware.PageLoginMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "apps.common.middleware.ErrorPageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "apps.common.context.navigation",
            ]
        },
    }
]
ROOT_URLCONF = "galley.urls"
ASGI_APPLICATION = "galley.asgi.application"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGIN_URL = "accounts:signin"
LOGIN_REDIRECT_URL = "projects:list"
LOGOUT_REDIRECT_URL = "accounts:signin"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "UserAttributeSimilarityValidator")
]
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
TIME_ZONE = env("TZ", default="UTC")
USE_TZ = True
USE_I18N = True
LOCALE_PATHS = [ROOT / "locale"]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = f"galley_session_{PORT}"  # cookies ignore ports: two copies on one host keep apart
CSRF_COOKIE_NAME = f"galley_csrf_{PORT}"
CSRF_COOKIE_SAMESITE = "Lax"
if GALLEY_HTTPS:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env("GALLEY_LOG_LEVEL", default="INFO")},
    "loggers": {"httpx": {"level": "WARNING"}},
}
