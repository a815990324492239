complete -c mqfs-reap -l older-than -d 'Keep orphans that were made, changed or used within this time [default: none are kept, but 1h for those of --foreign]' -r
complete -c mqfs-reap -l uid -d 'Look only at queues that this user made: a name or a number' -r
complete -c mqfs-reap -l watch -d 'Do it again every TIME until a signal; print a line for each queue removed' -r
complete -c mqfs-reap -s n -l dry-run -d 'Only show what would be done'
complete -c mqfs-reap -l check -d 'For monitoring: remove nothing, print the orphans alone, exit with 1 if there are any'
complete -c mqfs-reap -l json -d 'Print an object to a line instead of a table'
complete -c mqfs-reap -l foreign -d 'Also queues that mqfs did not make: those without a key whose last sender and last receiver are both dead'
complete -c mqfs-reap -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-reap -s V -l version -d 'Print version'
