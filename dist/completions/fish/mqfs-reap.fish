complete -c mqfs-reap -l older-than -d 'Keep orphans that were made, changed or used within this time [default: none; with --foreign 1h for queues of other programs]' -r
complete -c mqfs-reap -l uid -d 'Look only at queues that this user made: a name or a uid' -r -f -a "(__fish_complete_users)"
complete -c mqfs-reap -l watch -d 'Repeat every TIME until a signal; print a line for each queue removed' -r
complete -c mqfs-reap -l foreign -d 'Include queues of other programs: those without a key that no other user may use, whose last sender and last receiver are both dead'
complete -c mqfs-reap -s n -l dry-run -d 'Remove nothing, only show what would be removed'
complete -c mqfs-reap -l check -d 'For monitoring: remove nothing, print only orphans that you may remove, exit with 1 if there are any'
complete -c mqfs-reap -l json -d 'Print JSON, one object to a line, instead of a table'
complete -c mqfs-reap -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-reap -s V -l version -d 'Print version'
