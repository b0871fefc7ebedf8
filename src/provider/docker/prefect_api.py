# Prefect's own HTTP API, as scripts in the container of the task manager ask it. Stands before each of them.
import base64, json, os, sys, time, urllib.error, urllib.request

get = os.environ.get
local = "http://127.0.0.1:" + (get("PREFECT_SERVER_API_PORT") or "4200") + (get("PREFECT_SERVER_API_BASE_PATH") or "/api")
headers = {"Content-Type": "application/json"}
login = get("PREFECT_SERVER_API_AUTH_STRING") or get("PREFECT_API_AUTH_STRING")
if login:
    headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
# No proxy of the environment: this machine asks itself.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# What a server answers that has too much to do, or whose database is locked: it passes.
passing = (429, 502, 503, 504)


def ask(method, path, question=None):
    for pause in (0.5, 2):
        try:
            return ask_once(method, path, question)
        except urllib.error.HTTPError as error:
            if error.code not in passing:
                raise
            time.sleep(pause)
    return ask_once(method, path, question)


def ask_once(method, path, question):
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(local + path, body, headers, method=method)
    with opener.open(request, timeout=30) as answer:
        said = answer.read()
    return json.loads(said) if said else None


def ask_or_end(path, question):
    try:
        return ask("POST", path, question)
    except Exception as error:
        sys.exit("%s: %s" % (local, error))


