# Flow runs that run or are about to, as the task manager's own API tells them: one JSON object a line.
offset = 0
while True:
    # Without a limit a page is as long as the server allows.
    question = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}, "sort": "ID_DESC", "offset": offset}
    page = ask_or_end("/flow_runs/filter", question)
    for run in page:
        print(json.dumps({"id": run["id"], "name": run["name"], "state": run["state_type"]}))
    if not page:
        break
    offset += len(page)
