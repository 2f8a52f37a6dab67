"""A placeholder in an interpreter's code is refused when the rules are loaded; one in a word of data is not."""

from __future__ import annotations

import pytest

from whenthen.schemas.deployments import Deployment

CODE = [
    'sh -c "echo {{ x }}"',
    "sh -c {{ x }}",
    "sh -c 'echo \"{{x}}\"' sh {{ y }}",
    'bash -c "echo {{ x }}"',
    'dash -c "echo {{ x }}"',
    'zsh -c "echo {{ x }}"',
    'ksh -c "echo {{ x }}"',
    'ash -c "echo {{ x }}"',
    'fish -c "echo {{ x }}"',
    'fish --command="echo {{ x }}"',
    'tcsh -c "echo {{ x }}"',
    '/bin/sh -c "echo {{ x }}"',
    '/usr/local/bin/bash-5.2 -c "echo {{ x }}"',
    'BASH.EXE -c "echo {{ x }}"',
    'sh -ec "echo {{ x }}"',
    'sh -e -c "echo {{ x }}"',
    'sh -c -e "echo {{ x }}"',
    'bash -lc "echo {{ x }}"',
    'bash --login -c "echo {{ x }}"',
    'bash -euo pipefail -c "echo {{ x }}"',
    'bash -o pipefail -c "echo {{ x }}"',
    'bash -co pipefail "echo {{ x }}"',
    'bash --norc --rcfile file -c "echo {{ x }}"',
    'bash -c -- "echo {{ x }}"',
    'bash --command "echo {{ x }}"',
    'busybox sh -c "echo {{ x }}"',
    'env sh -c "echo {{ x }}"',
    'env -i A=1 sh -c "echo {{ x }}"',
    "env -S 'sh -c \"echo {{ x }}\"'",
    "env '-Ssh -c \"echo {{ x }}\"'",
    "env --split-string='sh -c {{ x }}'",
    '/usr/bin/env bash -c "echo {{ x }}"',
    'sudo -u bob sh -c "echo {{ x }}"',
    'sudo -n /bin/sh -ec "echo {{ x }}"',
    'nice -n 5 timeout 5 sh -c "echo {{ x }}"',
    'xargs -0 sh -c "echo {{ x }}"',
    'docker run --rm image sh -c "echo {{ x }}"',
    'kubectl exec pod -- bash -c "echo {{ x }}"',
    'find . -exec sh -c "echo {{ x }}" ;',
    "su -c 'echo {{ x }}' bob",
    "su bob -c 'echo {{ x }}'",
    "python -c 'print({{ x }})'",
    "python3 -c 'print(\"{{ x }}\")'",
    "python3.11 -Ic 'print({{ x }})'",
    "python3 -W ignore -c 'print({{ x }})'",
    "python3 '-cprint({{ x }})'",
    "python3 -m timeit '{{ x }}'",
    "sudo /usr/bin/python3 -c '{{ x }}'",
    "perl -e 'print {{ x }}'",
    "perl -E 'say {{ x }}'",
    "perl -lane 'print {{ x }}' file",
    "perl '-eprint {{ x }}'",
    "perl -M{{ x }} file",
    "ruby -e 'puts {{ x }}'",
    "ruby -rjson -ne 'puts {{ x }}'",
    "node -e 'console.log({{ x }})'",
    "node --eval 'console.log({{ x }})'",
    "node '--eval=console.log({{ x }})'",
    "node -pe '{{ x }}'",
    "nodejs -p '{{ x }}'",
    "deno eval '{{ x }}'",
    "php -r 'echo {{ x }};'",
    "lua -e 'print({{ x }})'",
    "lua5.4 -e 'print({{ x }})'",
    "awk '{print {{ x }}}'",
    "gawk -F, '/{{ x }}/' file",
    "awk -v a=1 '{{ x }}' file",
    "sed 's/a/{{ x }}/' file",
    "sed -i -e 's/a/b/' -e 's/c/{{ x }}/' file",
    "jq --arg a 1 '.{{ x }}' file",
    "ssh host 'echo {{ x }}'",
    "ssh -p 22 host echo {{ x }}",
    "ssh -oProxyCommand={{ x }} host",
    "Rscript -e 'print({{ x }})'",
    "R -e 'print({{ x }})'",
    "psql -c 'select {{ x }}'",
    "psql -d shop --command='select {{ x }}'",
    "psql -tAc 'select {{ x }}'",
    "mysql -e 'select {{ x }}'",
    "mysql shop -psecret -e 'select {{ x }}'",
    "perl -i.bak -pe 's/a/{{ x }}/' file",
    "perl -i -pe 's/a/{{ x }}/' file",
    "perl -F: -lane 'print {{ x }}' file",
    "node -r ./setup -e '{{ x }}'",
    "sqlite3 shop.db 'select {{ x }}'",
    "mongosh --eval '{{ x }}'",
    "powershell -Command 'Get-Item {{ x }}'",
    "powershell.exe -NoProfile -c Get-Item {{ x }}",
    "pwsh -comm 'Get-Item {{ x }}'",
    "powershell Get-Item {{ x }}",
    "cmd /c 'dir {{ x }}'",
    "cmd.exe /C dir {{ x }}",
    "eval {{ x }}",
    "watch -n 5 'echo {{ x }}'",
    "{{ shell }} -c 'echo {{ x }}'",
    # a value that may be an option with code
    "sh {{ x }} file",
    "python {{ x }}",
    "python -{{ x }}",
    "node --{{ x }} file",
    "ssh {{ x }} uptime",
    "env {{ x }} a",
    "sudo python3 {{ x }}",
    "perl -ne 'print' {{ x }}",
    "awk -f program.awk {{ x }}",
    "sed -n 1p {{ x }}",
    "psql shop {{ x }}",
]
DATA = [
    "sh -c 'echo \"$1\"' sh {{ x }}",
    "bash -euo pipefail -c 'echo \"$0\"' {{ x }}",
    "sh -c 'echo \"$WHENTHEN_PARAM_X\"'",
    "sh script.sh {{ x }}",
    "sh script.sh -c {{ x }}",
    "sh -- {{ x }}",
    "sh ./{{ x }}",
    "python3 load.py {{ x }}",
    "python3 load.py -c {{ x }}",
    "python3 -c 'import sys; print(sys.argv[1])' {{ x }}",
    "python3 -m shop.load {{ x }}",
    "perl -ne 'print' -- {{ x }}",
    "perl -i.e -ne 'print' -- {{ x }}",
    "perl script.pl -e {{ x }}",
    "node -e 'console.log(process.argv[1])' -- {{ x }}",
    "node server.js --eval {{ x }}",
    "deno run main.ts {{ x }}",
    "awk -v n={{ x }} '{print n}' {{ x }}",
    "awk -f program.awk -- {{ x }}",
    "sed -f script.sed ./{{ x }}",
    "sed -n 1p -- {{ x }}",
    "jq --arg n {{ x }} '.[$n]' {{ x }}",
    "psql -v n={{ x }} -f script.sql",
    "psql -d {{ x }} -f script.sql",
    "sqlite3 ./{{ x }}",
    "powershell -File load.ps1 {{ x }}",
    "pwsh load.ps1 {{ x }}",
    "env NAME={{ x }} load",
    "sudo -u bob load {{ x }}",
    "ssh bob@{{ x }} uptime",
    "kubectl get node {{ x }}",
    "git commit -m {{ x }}",
    "curl -e {{ x }} https://shop.example",
    "echo {{ x }}",
    "./load --path={{ x }}",
    "{{ x }}",
    "load sh",
    "sh -c",
]


@pytest.mark.parametrize("command", CODE)
def test_placeholder_in_an_interpreters_code_is_refused_with_the_remedy(command: str) -> None:
    with pytest.raises(ValueError, match="code") as caught:
        Deployment.model_validate({"name": "d", "command": command})
    assert "; " in str(caught.value)


@pytest.mark.parametrize("command", DATA)
def test_placeholder_in_a_word_of_data_is_accepted(command: str) -> None:
    assert Deployment.model_validate({"name": "d", "command": command}).command


@pytest.mark.parametrize("command", CODE)
def test_the_same_command_without_placeholders_is_accepted(command: str) -> None:
    plain = command.replace("{{ x }}", "x").replace("{{x}}", "x").replace("{{ y }}", "y").replace("{{ shell }}", "sh")
    assert Deployment.model_validate({"name": "d", "command": plain}).command


def test_words_of_a_list_are_read_as_those_of_a_text() -> None:
    with pytest.raises(ValueError, match="further word") as caught:
        Deployment.model_validate({"name": "d", "command": ["sh", "-c", "echo loading {{ table_names }}"]})
    assert "word 3 of the command" in str(caught.value)
    assert "$WHENTHEN_PARAM_TABLE_NAMES" in str(caught.value)
    assert "sh {{ table_names }}" in str(caught.value)


@pytest.mark.parametrize("command", ["echo {{ a | upper }}", ["echo", "{{ a.b }}"], "echo {{ a + 1 }}", "echo {{ }}"])
def test_an_expression_in_a_word_is_refused(command: object) -> None:
    with pytest.raises(ValueError, match=r"is not a parameter; write \{\{ name \}\}"):
        Deployment.model_validate({"name": "d", "command": command})
