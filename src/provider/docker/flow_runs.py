# Counts, lists, deletes or crashes flow runs. Argument: a JSON object, whose `do` says what. Answers one JSON value a line.
asked = json.loads(sys.argv[1])
unanswered = 0


def wanted():
    # Runs that have no start time are never before anything.
    return {"state": {"type": {"any_": asked["states"]}}, "start_time": {"before_": asked["before"]}}


def flush(run):
    if asked["do"] == "delete":
        return ask("DELETE", "/flow_runs/" + run)
    # Forced, since what is stale does not agree to anything any more.
    state = {"type": "CRASHED", "name": "Crashed", "message": "Flushed by infrahub-backup: it did not end in time"}
    said = ask("POST", "/flow_runs/" + run + "/set_state", {"state": state, "force": True})
    if said["status"] != "ACCEPT":
        raise ValueError("the task manager answers " + str(said["status"]))


def problem_of(run):
    global unanswered
    try:
        flush(run)
    except urllib.error.HTTPError as error:
        unanswered = 0
        # Somebody else was faster: it is not there any more, which was wanted.
        return None if error.code == 404 else "the task manager answers %d %s" % (error.code, error.reason)
    except OSError as error:
        unanswered += 1
        if unanswered == 3:
            # That is no trouble of one run.
            sys.exit("%s: %s" % (local, error))
        return "the task manager does not answer: %s" % error
    except Exception as error:
        return str(error)
    unanswered = 0
    return None


if asked["do"] == "count":
    print(ask_or_end("/flow_runs/count", {"flow_runs": wanted()}))
elif asked["do"] == "list":
    # The server refuses longer pages.
    longest = int(get("PREFECT_SERVER_API_DEFAULT_LIMIT") or get("PREFECT_API_DEFAULT_LIMIT") or 200)
    question = {"flow_runs": wanted(), "sort": "ID_DESC", "offset": asked["offset"], "limit": min(asked["limit"], longest)}
    for run in ask_or_end("/flow_runs/filter", question):
        print(json.dumps({"id": run["id"], "name": run["name"]}))
else:
    for run in asked["ids"]:
        print(json.dumps({"id": run, "problem": problem_of(run)}))
