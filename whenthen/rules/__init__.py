"""Rules: read from YAML with places, checked whole, watched for changes."""

from whenthen.rules.folder import Checker, Rules, check_rules, load_rules
from whenthen.rules.watcher import RulesWatcher

__all__ = ["Checker", "Rules", "RulesWatcher", "check_rules", "load_rules"]
