# Flow runs that run or are about to, as the task manager's own API tells them: one JSON object a line. Runs in its container.
import base64, json, os, sys, urllib.request

get = os.environ.get
local = "http://127.0.0.1:" + (get("PREFECT_SERVER_API_PORT") or "4200") + (get("PREFECT_SERVER_API_BASE_PATH") or "/api")
headers = {"Content-Type": "application/json"}
login = get("PREFECT_SERVER_API_AUTH_STRING") or get("PREFECT_API_AUTH_STRING")
if login:
    headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
# No proxy of the environment: this machine asks itself.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
offset = 0
while True:
    # Without a limit a page is as long as the server allows.
    question = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}, "sort": "ID_DESC", "offset": offset}
    request = urllib.request.Request(local + "/flow_runs/filter", json.dumps(question).encode(), headers)
    try:
        with opener.open(request, timeout=30) as answer:
            page = json.load(answer)
    except Exception as error:
        sys.exit("%s: %s" % (local, error))
    for run in page:
        print(json.dumps({"id": run["id"], "name": run["name"], "state": run["state_type"]}))
    if not page:
        break
    offset += len(page)
